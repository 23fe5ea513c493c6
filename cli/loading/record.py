"""What a load has done so far, in a file, so that the same command goes on where it ended."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from cli.loading.refusal import Refusal
from cli.loading.source import Place, Source

KEPT_REFUSALS = 1000


@dataclass
class LoadRecord:
    """Saved after each acknowledged batch. A batch that was acknowledged but not saved is sent again, which is
    harmless: the same document twice is the same document."""

    path: Path
    content: str = ""  # identifies what the sources held when it was begun
    place: Place = field(default_factory=Place)
    starts: list[int] = field(default_factory=lambda: [0])  # lines before each source up to the one of `place`
    jobs: list[str] = field(default_factory=list)
    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def resumed(self) -> bool:
        return self.place != Place()

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
                Place(**stored["place"]),
                [int(start) for start in stored["starts"]],
                list(stored["jobs"]),
                int(stored["sent"]),
                int(stored["accepted"]),
                int(stored["rejected"]),
                [Refusal(**refusal) for refusal in stored["refusals"]],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path, content)

    def refuse(self, refusals: list[Refusal]) -> None:
        self.rejected += len(refusals)
        self.refusals += refusals[: max(0, KEPT_REFUSALS - len(self.refusals))]

    def save(self) -> None:
        """Writes the record, whole or not at all."""
        stored = {
            "content": self.content,
            "place": asdict(self.place),
            "starts": self.starts,
            "jobs": self.jobs,
            "sent": self.sent,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "refusals": [refusal.as_json() for refusal in self.refusals],
        }
        scratch = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        scratch.write_text(json.dumps(stored))
        scratch.replace(self.path)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def content_identity(sources: Sequence[Source]) -> str:
    """Changes when any source does. Raises OSError."""
    return hashlib.sha256(repr([source.identity() for source in sources]).encode()).hexdigest()[:32]


def record_name(paths: Sequence[Path], *way: str) -> str:
    """A file name for the record of these sources on this very way: door, index, when it was created, field map.

    An index that was deleted and created again has another moment of creation: nothing of it is loaded yet.
    """
    parts = ([str(path.resolve()) for path in paths], way)
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()[:32] + ".json"
