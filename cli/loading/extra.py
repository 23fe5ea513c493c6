"""Libraries of the extra `[load]`: who lacks one is told what to install."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.errors import ConfigurationError


@contextmanager
def needs(module: str, what: str) -> Iterator[None]:
    """Around an import. Raises ConfigurationError (`missing_library`)."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise ConfigurationError(
            "missing_library",
            f"To read or write {what}, install the extra: pip install 'sparsewell[load]' ({module} is missing).",
        ) from None
