"""A JSONL file, plain or gzip, as batches of lines that know their numbers."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from services.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Place:
    """Up to where a file is dealt with: lines, and bytes of the uncompressed content."""

    line: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines with their numbers (from 1), blank ones left out; `end` is where the next batch begins.

    `read` counts the file's own bytes up to here, compressed ones where it is compressed; -1 when unknown.
    """

    lines: list[tuple[int, bytes]]
    end: Place
    read: int = field(default=-1)


def read_batches(path: Path, start: Place, max_documents: int, max_bytes: int) -> Iterator[Batch]:
    """Batches of at most `max_documents` lines and `max_bytes` (one line at least), from `start` on.

    The last batch may have no lines. Raises ConfigurationError (`unreadable_file`).
    """
    try:
        with path.open("rb") as raw:
            content = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
            content.seek(start.offset)
            lines: list[tuple[int, bytes]] = []
            size, number, offset = 0, start.line, start.offset
            for line in content:
                # (what some editors put before the first line to say that it is UTF-8)
                text = (line if offset else line.removeprefix(codecs.BOM_UTF8)).strip()
                if lines and (len(lines) >= max_documents or size + len(text) > max_bytes):
                    yield Batch(lines, Place(number, offset), raw.tell())
                    lines, size = [], 0
                number += 1
                offset += len(line)
                if text:
                    lines.append((number, text))
                    size += len(text)
            yield Batch(lines, Place(number, offset), path.stat().st_size)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigurationError("unreadable_file", f"{path} cannot be read: {error}.") from None
