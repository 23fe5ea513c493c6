"""Documents that take long to read, read beside the event loop, so that searches are answered meanwhile."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from services.documents import Document

T = TypeVar("T")

_LONG = 64 * 1024  # bytes of JSON: of talk that is read in some 20 ms


@dataclass(frozen=True, slots=True)
class Read:
    """A document that was read before it is journalled, with the bytes of its JSON."""

    document: Document
    size: int


class LongReading:
    """One at a time: each thread takes its turn of the interpreter, and the event loop is one among them. Beside six
    that read talk of 50,000 segments, searches took ten times as long as beside one (docs/decisions/0190).
    """

    def __init__(self) -> None:
        self._beside = ThreadPoolExecutor(1, "long-reading")

    async def run(self, read: Callable[[], T], size: int) -> T:
        """What `read` returns or raises; at once where it is short."""
        if size < _LONG:
            return read()
        return await asyncio.get_running_loop().run_in_executor(self._beside, read)

    def close(self) -> None:
        """Begins nothing more."""
        self._beside.shutdown(wait=False, cancel_futures=True)
