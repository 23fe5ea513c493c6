"""What a load has done so far, in a file, so that the same command goes on where it ended."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Self

import orjson

from cli.loading.source import LoadSource, Refusal, SourcePosition

# Refusals are put in order when there are no more than this; of a file that is wrong throughout they come as they came.
MAX_SORTED_REFUSALS = 10_000


@dataclass
class LoadCheckpoint:
    """Saved before the first batch and after each acknowledged one. A batch that was acknowledged but not saved is sent
    again, which is harmless: the API knows it by its key, and the same document twice is the same document."""

    path: Path
    content: str = ""  # identifies what the sources held when it was begun
    place: SourcePosition = field(default_factory=SourcePosition)
    starts: list[int] = field(default_factory=lambda: [0])  # lines before each source up to the one of `place`
    jobs: list[str] = field(default_factory=list)
    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    refused_bytes: int = 0
    # Names this load to the API, which keeps a batch that is sent again to one job. One that is begun anew is new.
    load: str = field(default_factory=lambda: uuid.uuid4().hex)
    _refusals: list[bytes] = field(default_factory=list)  # lines that `save` adds to the file of refusals

    @property
    def resumed(self) -> bool:
        return self.place != SourcePosition()

    @classmethod
    def open(cls, path: Path, content: str) -> Self:
        """Reads the record, or begins one; a record that cannot be read counts as none.

        A record of another `content` is handed out as it is: the caller sees that the sources changed.
        """
        try:
            stored = json.loads(path.read_bytes())
            return cls(
                path,
                str(stored["content"]),
                SourcePosition(**stored["place"]),
                [int(start) for start in stored["starts"]],
                list(stored["jobs"]),
                int(stored["sent"]),
                int(stored["accepted"]),
                int(stored["rejected"]),
                int(stored["refused_bytes"]),
                str(stored["load"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path, content)

    def refuse(self, refusals: list[Refusal]) -> None:
        """Counts refusals; the next `save` keeps them."""
        self.rejected += len(refusals)
        self._refusals += [orjson.dumps(asdict(refusal)) + b"\n" for refusal in refusals]

    def save(self) -> None:
        """Writes the record, whole or not at all, and before it what was refused since the last time."""
        self._save_refusals()
        stored = {
            "content": self.content,
            "place": asdict(self.place),
            "starts": self.starts,
            "jobs": self.jobs,
            "sent": self.sent,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "refused_bytes": self.refused_bytes,
            "load": self.load,
        }
        scratch = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        scratch.write_text(json.dumps(stored))
        scratch.replace(self.path)

    def _save_refusals(self) -> None:
        if not self._refusals:
            return
        with self._refused.open("ab") as out:
            # (what a load that died had added is not in its record, and comes again)
            out.truncate(self.refused_bytes)
            out.writelines(self._refusals)
        self.refused_bytes += sum(map(len, self._refusals))
        self._refusals = []

    @property
    def _refused(self) -> Path:
        return self.path.with_suffix(".refused")

    def refusals(self) -> Iterator[Refusal]:
        """Everything that was refused and saved: by file and line, or if that is too much in order of appearance."""
        if not self.refused_bytes:
            return
        with self._refused.open("rb") as lines:
            found = (Refusal(**orjson.loads(line)) for line in lines)
            first = list(islice(found, MAX_SORTED_REFUSALS + 1))
            if len(first) <= MAX_SORTED_REFUSALS:
                first.sort(key=lambda one: one.order)
            yield from first
            yield from found

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._refused.unlink(missing_ok=True)


def content_identity(sources: Sequence[LoadSource]) -> str:
    """Changes when any source does. Raises OSError."""
    return hashlib.sha256(repr([source.identity() for source in sources]).encode()).hexdigest()[:32]


def checkpoint_name(paths: Sequence[Path], *way: str) -> str:
    """A file name for the record of these sources on this very way: door, index, when it was created, field map.

    An index that was deleted and created again has another moment of creation: nothing of it is loaded yet.
    """
    parts = ([str(path.resolve()) for path in paths], way)
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()[:32] + ".json"
