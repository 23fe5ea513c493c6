"""Check of result files before the work starts."""

from pathlib import Path

from services.errors import ConfigurationError


def require_writable(path: Path) -> None:
    """Make the directory of a file and check that the file can be written. An existing file does not change.

    Raises ConfigurationError (`unwritable_file`).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise ConfigurationError("unwritable_file", f"{path} cannot be written: {error.strerror}.") from None
