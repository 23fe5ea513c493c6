"""What a load has done so far, in a file, so that the same command goes on where it ended."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cli.loading.source import Place

KEPT_REFUSALS = 1000


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that was not accepted."""

    line: int
    id: str | None
    code: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {"line": self.line, "id": self.id, "code": self.code, "reason": self.reason}


@dataclass
class LoadRecord:
    """Saved after each acknowledged batch. A batch that was acknowledged but not saved is sent again, which is
    harmless: the same document twice is the same document."""

    path: Path
    place: Place = field(default_factory=Place)
    jobs: list[str] = field(default_factory=list)
    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def resumed(self) -> bool:
        return self.place.line > 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Reads the record, or begins one; a record that cannot be read counts as none."""
        try:
            stored = json.loads(path.read_bytes())
            return cls(
                path,
                Place(**stored["place"]),
                list(stored["jobs"]),
                int(stored["sent"]),
                int(stored["accepted"]),
                int(stored["rejected"]),
                [Refusal(**refusal) for refusal in stored["refusals"]],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path)

    def refuse(self, refusals: list[Refusal]) -> None:
        self.rejected += len(refusals)
        self.refusals += refusals[: max(0, KEPT_REFUSALS - len(self.refusals))]

    def save(self) -> None:
        """Writes the record, whole or not at all."""
        stored = {
            "place": {"line": self.place.line, "offset": self.place.offset},
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


def record_name(file: Path, door: str, index: str, created_at: str) -> str:
    """A file name for the record of this very content on its way through this door into this very index.

    An index that was deleted and created again has another `created_at`: nothing of it is loaded yet.
    """
    status = file.stat()
    parts = (str(file.resolve()), status.st_size, status.st_mtime_ns, door, index, created_at)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32] + ".json"
