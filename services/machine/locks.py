"""A lock between processes that says when it waits, so that two starters do not fetch or start the same thing twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; call `waiting` once when another process holds it, then wait.

    Use FileLock itself where nobody needs to know of the wait. The kernel releases the lock when its holder dies, so a
    file that stays behind does no harm.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        waiting()
        held = lock.acquire()
    with held:
        yield
