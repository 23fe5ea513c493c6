"""What became of a talk's chapters, and which of its windows are of which chapter."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.talk.chapters import Chapter, Engine, Repair

KIND = "talk"


class Span(Protocol):
    """A window of `joined_text`, as it is cut or as it is stored."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Chaptering:
    """Who made the chapters of a talk, what was mended, and why there are none (`error`: code and reason).

    `engine` is the one that was asked, `none` where the index asks none. A producer's chapters have no fingerprint.
    """

    engine: Engine | str
    chapters: Sequence[Chapter] = ()
    fingerprint: str = ""
    repairs: Sequence[Repair] = ()
    error: tuple[str, str] | None = None

    def fields(self) -> dict[str, Any]:
        """As it is stored with the encoded document."""
        said: dict[str, Any] = {"engine": self.engine}
        if self.fingerprint:
            said["fingerprint"] = self.fingerprint
        if self.repairs:
            said["repairs"] = [repair.as_json() for repair in self.repairs]
        if self.error is not None:
            said["error"] = {"code": self.error[0], "reason": self.error[1]}
        found: dict[str, Any] = {"chaptering": said}
        if self.chapters:
            found["chapters"] = [chapter.as_json(number) for number, chapter in enumerate(self.chapters, 1)]
            found["chapter_titles"] = [chapter.title for chapter in self.chapters]
        return found


def is_talk(source: Mapping[str, Any]) -> bool:
    """Whether a stored document is talk."""
    return source.get("kind") == KIND


def given_chapters(source: Mapping[str, Any]) -> list[Chapter] | None:
    """The producer's chapters of a stored talk; None where there are none."""
    given = source.get("given")
    return [Chapter.read(one) for one in given] if given else None


def ends_in_text(windows: Sequence[Span], shift: int) -> list[int]:
    """Where each window ends in the text, ascending. `shift`: characters of `joined_text` before the text begins.

    A window of a long title alone counts as one of the text's first character.
    """
    return [max(window.end - shift, 1) for window in windows]


def windows_within(chapter: Mapping[str, Any], ends: Sequence[int]) -> range:
    """Positions of the windows of a stored chapter, by their ends: a window never crosses a chapter."""
    return range(bisect_right(ends, chapter["start"]), bisect_right(ends, chapter["end"]))


def chapter_at(chapters: Sequence[Mapping[str, Any]], end: int) -> Mapping[str, Any] | None:
    """The stored chapter that a stretch of the text is of which ends (exclusive) at this character."""
    return next((one for one in chapters if one["start"] < max(end, 1) <= one["end"]), None)
