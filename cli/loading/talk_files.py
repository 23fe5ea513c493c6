"""Transcripts in files: NAME.vtt, .json, .srt or .txt, with NAME.chapters.json and NAME.meta.json beside it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from cli.loading.file_rows import FileRows
from cli.loading.source import Make
from cli.loading.text_files import read_text
from cli.loading.walking import Entry, shown, walk
from services.errors import ConfigurationError, InvalidInput

# Of several transcripts of one name the first of these is taken: they have times and speakers, times, neither.
TYPES = {".vtt": "text/vtt", ".json": "application/json", ".srt": "application/x-subrip", ".txt": "text/plain"}
CHAPTERS, META = ".chapters.json", ".meta.json"
_META = ("title", "description", "duration", "url", "metadata", "version")


class TalkFiles(FileRows):
    """A directory, or transcripts that were named one by one. Lines count talks.

    The id of a talk is the path of its transcript below the directory, or as it was given, without the ending.
    """

    typed = False

    def __init__(self, root: Path | None, files: Sequence[Path] = ()) -> None:
        """Looks at every file's size and time of change. Raises OSError, ConfigurationError (`unknown_format`)."""
        for path in files:
            if _name(path) is None:
                raise ConfigurationError(
                    "unknown_format",
                    f"{path} is no transcript: those end in {', '.join(TYPES)}.",
                )
        super().__init__(root, files)

    def _beside(self, path: Path) -> Iterable[Path]:
        return _beside(path)

    def _document(self, entry: Entry, make: Make) -> bytes | InvalidInput:
        return _document(entry)

    def _entries(self, skipped: Counter[str]) -> Iterator[Entry]:
        if self._root is None:
            yield from (Entry(shown(path.as_posix()), path) for path in self._files)
            return
        for entry in walk(self._root, skipped, lambda path: path.suffix.lower() in TYPES):
            stem = _name(entry.path)
            if stem is None:
                if not any(Path(f"{_companion_of(entry.path)}{ending}").exists() for ending in TYPES):
                    skipped["chapters and meta files without a transcript"] += 1
            elif any(Path(f"{stem}{ending}").exists() for ending in _before(entry.path.suffix.lower())):
                skipped["other transcripts of the same talk"] += 1
            else:
                yield entry


def _document(entry: Entry) -> bytes | InvalidInput:
    """The JSON of a talk as the API takes it; the service reads what the transcript holds."""
    chapters, meta = _beside(entry.path)
    document: dict[str, Any] = {"id": entry.name[: -len(entry.path.suffix)], "kind": "talk"}
    try:
        text = read_text(entry.path)
        if not text.strip():
            raise InvalidInput("empty_file", "It has no text.")
        document["transcript"] = {"type": TYPES[entry.path.suffix.lower()], "text": text}
        if chapters.exists():
            document["chapters"] = _json(chapters)
        if meta.exists():
            document |= _meta(meta)
        return orjson.dumps(document)
    except ConfigurationError as error:
        return InvalidInput(error.code, error.detail)
    except InvalidInput as error:
        return error


def _meta(path: Path) -> dict[str, Any]:
    value = _json(path)
    if not isinstance(value, dict) or (value.keys() - set(_META)):
        raise InvalidInput("bad_meta", f"{path.name} must be an object with some of {', '.join(_META)}.")
    return value


def _json(path: Path) -> Any:
    try:
        return orjson.loads(read_text(path))
    except orjson.JSONDecodeError as error:
        raise InvalidInput("invalid_json", f"{path.name} is not JSON: {error}.") from None
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{path.name}: {error.detail}") from None


def _name(path: Path) -> str | None:
    """The path of a transcript without its ending; None for other files."""
    if path.suffix.lower() not in TYPES or path.name.lower().endswith((CHAPTERS, META)):
        return None
    return str(path)[: -len(path.suffix)]


def _companion_of(path: Path) -> str:
    ending = CHAPTERS if path.name.lower().endswith(CHAPTERS) else META
    return str(path)[: -len(ending)]


def _before(ending: str) -> list[str]:
    """The endings of transcripts that are taken rather than this one."""
    return list(TYPES)[: list(TYPES).index(ending)]


def _beside(path: Path) -> tuple[Path, Path]:
    stem = str(path)[: -len(path.suffix)]
    return Path(stem + CHAPTERS), Path(stem + META)
