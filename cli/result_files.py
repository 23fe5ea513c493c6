"""Files and directories for results, tried before the work whose result they are to hold."""

from pathlib import Path

from services.errors import ConfigurationError


def require_writable(path: Path) -> None:
    """Makes the directory of a file and tries to write there; the file stays as it is.

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
