"""A disk that is full, closed or away: one line instead of a traceback, whoever was writing."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.errors import ConfigurationError

# PyTorch and safetensors write through code of their own, and say so in other classes than OSError.
_WRITERS = ("PytorchStreamWriter", "inline_container", "Error while serializing: I/O error")


@contextmanager
def disk_failures() -> Iterator[None]:
    """Turns what a disk refuses into ConfigurationError (`unwritable_directory`)."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # (not of a system call: libraries raise it for what they cannot understand)
            raise
        raise _told(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)) from None
    except Exception as error:  # safetensors and PyTorch have no common base
        if any(mark in str(error) for mark in _WRITERS):
            raise _told(str(error).splitlines()[0]) from None
        raise


def _told(what: str) -> ConfigurationError:
    return ConfigurationError(
        "unwritable_directory",
        f"A file cannot be written or read: {what}. Make room or choose another directory, and give the same command "
        "again: what is finished stays, and a run goes on from its last whole checkpoint.",
    )
