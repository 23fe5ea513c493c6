"""Libraries of the extras: who lacks one is told what to install."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.errors import ConfigurationError


@contextmanager
def needs(module: str, what: str, extra: str = "load") -> Iterator[None]:
    """Around an import; `what` is what cannot be done without it. Raises ConfigurationError (`missing_library`)."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise ConfigurationError(
            "missing_library", f"To {what}, install the extra: pip install -e '.[{extra}]' ({module} is missing)."
        ) from None
