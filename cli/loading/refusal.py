"""One document, line or file that was not accepted."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """`line` counts from 1 in its file (rows of Parquet); None for a file that is one document.

    `file` names the file where a load reads more than one.
    """

    line: int | None
    id: str | None
    code: str
    reason: str
    file: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {"file": self.file, "line": self.line, "id": self.id, "code": self.code, "reason": self.reason}

    @property
    def where(self) -> str:
        """For people: the file when it is named, and the line."""
        line = "" if self.line is None else f"line {self.line}"
        return " ".join(part for part in (self.file, line) if part)

    @property
    def order(self) -> tuple[str, int]:
        """By file and line."""
        return self.file or "", self.line or 0
