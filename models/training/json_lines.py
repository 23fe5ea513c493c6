"""JSON objects, one a line, from files that training reads: a bad line is counted and shown, it ends nothing."""

import codecs
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from services.content import lines, open_content
from services.errors import InvalidInput

# No line is held in memory beyond this: eight times what the API takes of one document by default.
MAX_LINE_BYTES = 8 * 1024**2
_SHOWN = 5


@dataclass
class ReadReport:
    """What became of a file's lines. `refused` counts them by code, `examples` shows the first few in words."""

    name: str
    lines: int = 0  # blank ones left out
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def refuse(self, line: int, error: InvalidInput) -> None:
        self.refused[error.code] += 1
        if len(self.examples) < _SHOWN:
            self.examples.append(f"{self.name}, line {line}: {error.detail}")

    def as_json(self) -> dict[str, Any]:
        """For reports: file, lines, taken, refused by code, examples."""
        return {
            "file": self.name,
            "lines": self.lines,
            "taken": self.taken,
            "refused": dict(sorted(self.refused.items())),
            "examples": self.examples,
        }


def read_objects(path: Path, report: ReadReport) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line numbers from 1 and the objects, as a stream; .gz, .bz2, .xz and .zst are unpacked on the way.

    Lines that are too long, not UTF-8, not JSON (NaN is none) or no object are refused in `report`. Raises
    ConfigurationError (`unreadable_file`) and, for an archive that is cut or no archive, InvalidInput (`damaged_file`).
    """
    with open_content(path) as content:
        for number, line, _ in lines(content, 0, 0, MAX_LINE_BYTES):
            text = line if line is None else (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
            if text == b"":
                continue
            report.lines += 1
            try:
                value = _object(text)
            except InvalidInput as error:
                report.refuse(number, error)
            else:
                yield number, value


def _object(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise InvalidInput("line_too_long", f"it has more than {MAX_LINE_BYTES:,} bytes")
    try:
        line.decode()
        value = orjson.loads(line)
    except UnicodeDecodeError:
        raise InvalidInput("not_utf8", "it is not UTF-8") from None
    except orjson.JSONDecodeError as error:
        raise InvalidInput("not_json", f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput("not_an_object", "it is not a JSON object")
    return value


def text_of(record: Mapping[str, Any], name: str, *, required: bool = True) -> str:
    """A member that is a text, without the white space around it; "" for an absent one that is not required.

    Raises InvalidInput: `missing_member`, `wrong_type`, `empty_text`.
    """
    value = record.get(name)
    if value is None:
        if not required:
            return ""
        raise InvalidInput("missing_member", f"it has no `{name}`")
    if not isinstance(value, str):
        raise InvalidInput("wrong_type", f"`{name}` is {type(value).__name__}, not a string")
    text = value.strip()
    if required and not text:
        raise InvalidInput("empty_text", f"`{name}` is empty")
    return text
