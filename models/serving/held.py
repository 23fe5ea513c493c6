"""The models that a model process holds, and how many requests may wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from models.dense.model import DenseModel
from models.reranking.scorer import Scorer
from services.errors import InvalidInput, Overloaded

Result = TypeVar("Result")
# A search waits half a second; what stands behind more than this would be computed for nobody.
MOST_WAITING = 64


class Held:
    """Dense encoders by name and fingerprint, scorers by name; computing happens in `threads` threads."""

    def __init__(self, dense: Mapping[str, DenseModel], scorers: Mapping[str, Scorer], *, threads: int = 1) -> None:
        self.dense = dict(dense)
        self.scorers = dict(scorers)
        self._by_fingerprint = {model.fingerprint: model for model in dense.values()}
        self._pool = ThreadPoolExecutor(threads, "model")
        self._waiting = 0

    def encoder(self, name: str | None) -> DenseModel:
        """By name or fingerprint, None: the first. Raises InvalidInput (`unknown_dense_encoder`)."""
        if name is None and self.dense:
            return next(iter(self.dense.values()))
        found = self._by_fingerprint.get(name or "") or self.dense.get(name or "")
        if found is None:
            held = ", ".join(f"{one.name} ({one.fingerprint})" for one in self.dense.values()) or "none"
            raise InvalidInput("unknown_dense_encoder", f"This process does not hold {name!r}; it holds {held}.")
        return found

    def scorer(self, name: str) -> Scorer:
        """Raises InvalidInput (`unknown_reranker`)."""
        if name not in self.scorers:
            held = ", ".join(self.scorers) or "none"
            raise InvalidInput("unknown_reranker", f"This process has no reranker {name[:80]!r}; it has {held}.")
        return self.scorers[name]

    async def compute(self, work: Callable[[], Result]) -> Result:
        """Runs it in one of the threads. Raises Overloaded (`model_busy`) when too many wait already."""
        if self._waiting >= MOST_WAITING:
            raise Overloaded("model_busy", "Too many requests wait for this model; try again in a moment.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
