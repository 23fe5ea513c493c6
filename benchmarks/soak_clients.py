"""Clients of a soak: two addresses as of a balancer, searches and documents at a rate, and what became of each."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import orjson

from benchmarks.loopback import KeptConnection

_TRIES = 60
_PAUSE = 0.5
INDEX = "soak"


class Balanced:
    """A client of two APIs: what one does not answer is asked of the other, as a balancer in front of them does."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = list(addresses)
        self._at = 0
        self._kept: KeptConnection | None = None

    async def send(self, method: str, path: str, body: bytes, tries: int) -> tuple[Any, int]:
        """The answer, and how often it had to ask again. Raises the last error."""
        for again in range(tries):
            try:
                if self._kept is None:
                    self._kept = await KeptConnection(self._addresses[self._at]).__aenter__()
                return await self._kept.send(method, path, body), again
            except (OSError, EOFError, RuntimeError, asyncio.IncompleteReadError):
                self._kept = None
                self._at = (self._at + 1) % len(self._addresses)
                if again == tries - 1:
                    raise
                if again:
                    await asyncio.sleep(_PAUSE)
        raise AssertionError(tries)


@dataclass
class Kept:
    """What happened: (seconds since the beginning, milliseconds) of searches; documents acknowledged, by version."""

    searches: list[tuple[float, float]] = field(default_factory=list)
    asked_again: int = 0
    failed: list[str] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    refused: int = 0


class Clients:
    """`connections` clients that share one stream of work."""

    def __init__(
        self, addresses: Sequence[str], queries: Sequence[str], texts: Sequence[str], connections: int
    ) -> None:
        self.kept = Kept()
        self._queries, self._texts = queries, texts
        self._free: asyncio.Queue[Balanced] = asyncio.Queue()
        for _ in range(connections):
            self._free.put_nowait(Balanced(addresses))
        self._chance = random.Random(1)
        self._written = 0

    async def search(self, due: float, began: float) -> None:
        """One hybrid search, by the clock from when it was due."""
        body = orjson.dumps({"query": self._chance.choice(self._queries)})
        client = await self._free.get()
        try:
            _, again = await client.send("POST", f"/v1/indexes/{INDEX}/search", body, 3)
            self.kept.asked_again += again > 0
            self.kept.searches.append((due - began, (perf_counter() - due) * 1000))
        except (OSError, EOFError, RuntimeError) as error:
            self.kept.failed.append(f"{due - began:.1f} s: {str(error)[:200]}")
        finally:
            self._free.put_nowait(client)

    async def write(self, most: int) -> None:
        """One document of `most` ids in turn, each time in a newer version; sent until it is acknowledged."""
        number = self._written
        self._written += 1
        name, version = f"d{number % most}", number // most + 1
        text = self._texts[number % len(self._texts)]
        body = orjson.dumps([{"id": name, "text": text, "version": version}])
        client = await self._free.get()
        try:
            answer, again = await client.send("POST", f"/v1/indexes/{INDEX}/documents", body, _TRIES)
            self.kept.refused += again
            if answer["rejected"]:
                raise RuntimeError(str(answer["rejected"])[:200])
            self.kept.acknowledged[name] = max(version, self.kept.acknowledged.get(name, 0))
        except (OSError, EOFError, RuntimeError) as error:
            self.kept.failed.append(f"document {name}: {str(error)[:200]}")
        finally:
            self._free.put_nowait(client)

    async def closed_loop(self, seconds: float, share: int, most: int) -> float:
        """Units of work a second (`share` searches and a document) with as many under way as there are clients."""
        began, done = perf_counter(), 0

        async def one() -> None:
            nonlocal done
            while perf_counter() < began + seconds:
                for _ in range(share):
                    await self.search(perf_counter(), began)
                await self.write(most)
                done += 1

        await asyncio.gather(*(one() for _ in range(self._free.qsize())))
        return done / (perf_counter() - began)

    async def at_rate(self, rate: float, seconds: float, share: int, most: int) -> None:
        """Units of work as a Poisson process, whether earlier ones are answered or not."""
        began = due = perf_counter()
        under_way: set[asyncio.Task[None]] = set()
        each = rate * (share + 1)
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - perf_counter()))
            work = self.write(most) if self._chance.random() < 1 / (share + 1) else self.search(due, began)
            task = asyncio.create_task(work)
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due += self._chance.expovariate(each)
        await asyncio.gather(*under_way)
