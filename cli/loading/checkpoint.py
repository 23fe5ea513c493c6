"""The checkpoint of a load: its position, jobs and counts in a file, so that the same command resumes it.

A file beside it holds the refusals. The name of the file is a hash of the sources and the target.
"""

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

# More refusals than this are not sorted, so that a file with only bad lines does not fill the memory.
MAX_SORTED_REFUSALS = 10_000


@dataclass
class LoadCheckpoint:
    """State of a load, saved before the first batch and after each acknowledged batch.

    A resumed load sends a batch again that was acknowledged but not saved. This does no harm: the API knows its
    idempotency key, and an equal document changes nothing.
    """

    path: Path
    content: str = ""  # `content_identity` of the sources at the start
    place: SourcePosition = field(default_factory=SourcePosition)
    starts: list[int] = field(default_factory=lambda: [0])  # lines before each source, up to the source of `place`
    jobs: list[str] = field(default_factory=list)
    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    unchanged: int = 0  # documents that the index has already
    refused_bytes: int = 0
    # Part of the idempotency keys of this load, so that a repeated batch keeps its job. A new load has a new id.
    load: str = field(default_factory=lambda: uuid.uuid4().hex)
    _refusals: list[bytes] = field(default_factory=list)  # lines that `save` appends to the file of refusals

    @property
    def resumed(self) -> bool:
        """Tell whether an earlier run has sent batches."""
        return self.place != SourcePosition()

    @classmethod
    def open(cls, path: Path, content: str) -> Self:
        """Read a checkpoint, or start a new one if the file is missing or unreadable.

        A checkpoint of other `content` is returned unchanged: the caller compares it.
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
                int(stored["unchanged"]),
                int(stored["refused_bytes"]),
                str(stored["load"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path, content)

    def refuse(self, refusals: list[Refusal]) -> None:
        """Count refusals. The next `save` writes them."""
        self.rejected += len(refusals)
        self._refusals += [orjson.dumps(asdict(refusal)) + b"\n" for refusal in refusals]

    def save(self) -> None:
        """Append the new refusals to their file, then replace the checkpoint atomically."""
        self._save_refusals()
        stored = {
            "content": self.content,
            "place": asdict(self.place),
            "starts": self.starts,
            "jobs": self.jobs,
            "sent": self.sent,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "unchanged": self.unchanged,
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
            # Remove refusals of a killed run that its checkpoint does not count: they are refused again.
            out.truncate(self.refused_bytes)
            out.writelines(self._refusals)
        self.refused_bytes += sum(map(len, self._refusals))
        self._refusals = []

    @property
    def _refused(self) -> Path:
        return self.path.with_suffix(".refused")

    def refusals(self) -> Iterator[Refusal]:
        """Yield the saved refusals, sorted by file and line if there are at most MAX_SORTED_REFUSALS."""
        if not self.refused_bytes:
            return
        with self._refused.open("rb") as lines:
            refusals = (Refusal(**orjson.loads(line)) for line in lines)
            first = list(islice(refusals, MAX_SORTED_REFUSALS + 1))
            if len(first) <= MAX_SORTED_REFUSALS:
                first.sort(key=lambda refusal: refusal.order)
            yield from first
            yield from refusals

    def forget(self) -> None:
        """Delete the files."""
        self.path.unlink(missing_ok=True)
        self._refused.unlink(missing_ok=True)


def content_identity(sources: Sequence[LoadSource]) -> str:
    """Return a hash of the sources' identities. Raises OSError."""
    return hashlib.sha256(repr([source.identity() for source in sources]).encode()).hexdigest()[:32]


def checkpoint_name(paths: Sequence[Path], *target: str) -> str:
    """Return the file name for a load of these sources to a target: destination, index, its creation time, field map.

    An index that was deleted and created again has a new creation time, so its load starts from the beginning.
    """
    identity = ([str(path.resolve()) for path in paths], target)
    return hashlib.sha256(repr(identity).encode(errors="surrogateescape")).hexdigest()[:32] + ".json"
