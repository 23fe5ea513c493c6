"""A chapter of a talk, and what was mended on the way to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Engine = Literal["given", "tiling", "podtile"]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Characters `start` to `end` (exclusive) of a talk's text, with a title; times in seconds where they are known."""

    title: str
    start: int
    end: int
    start_time: float | None = None
    end_time: float | None = None

    def as_json(self, number: int) -> dict[str, Any]:
        """As it is stored and shown; `number` counts from 1. Times that are not known are left out."""
        shown: dict[str, Any] = {"number": number, "title": self.title, "start": self.start, "end": self.end}
        if self.start_time is not None:
            shown["start_time"] = self.start_time
        if self.end_time is not None:
            shown["end_time"] = self.end_time
        return shown

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Chapter":
        """The inverse of `as_json`."""
        return cls(stored["title"], stored["start"], stored["end"], stored.get("start_time"), stored.get("end_time"))


@dataclass(frozen=True, slots=True)
class Repair:
    """Something in what was sent, or in what a model wrote, that was mended: how often, and what was done."""

    code: str
    detail: str
    count: int = 1

    def as_json(self) -> dict[str, Any]:
        """As it is stored in the document's state and shown."""
        return {"code": self.code, "detail": self.detail, "count": self.count}
