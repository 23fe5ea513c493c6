"""The chapters of a producer: Podcasting 2.0 chapters JSON or a list of the same, placed in the text. They are kept."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.errors import InvalidInput, TooLarge
from services.talk.chapters import Chapter
from services.talk.joining import Joined
from services.talk.repairs import Repairs
from services.talk.row import moment, one_line
from services.talk.segments import UNKNOWN

MAX_CHAPTERS = 1000
MAX_TITLE = 1000  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KEPT = frozenset({"title", "startTime", "endTime", "segment", "toc"})
# A transcript without ends and a talk without a duration end somewhere after the last start.
_TAIL = 600_000  # milliseconds


@dataclass(slots=True)
class _Sent:
    title: str
    start: int
    end: int
    offset: int


def given_chapters(value: Any, talk: Joined, repairs: Repairs) -> tuple[Chapter, ...] | None:
    """None: the producer has none (or none that are about this talk, which the repairs say).

    Raises InvalidInput (`bad_chapters`, `bad_time`, `chapters_without_times`) or TooLarge (`too_many_chapters`).
    """
    items = value.get("chapters") if isinstance(value, dict) else value
    if value is None or items == []:
        return None
    if not isinstance(items, list):
        raise InvalidInput("bad_chapters", "`chapters` must be a list, or an object with a list `chapters`.")
    if len(items) > MAX_CHAPTERS:
        raise TooLarge("too_many_chapters", f"A talk may have {MAX_CHAPTERS:,} chapters.", limit=MAX_CHAPTERS)
    sent = [one for i, item in enumerate(items) if (one := _read(item, i, talk, repairs)) is not None]
    return _chapters(_distinct(_in_order(sent, repairs), repairs), talk, repairs) or None


def _read(item: Any, i: int, talk: Joined, repairs: Repairs) -> _Sent | None:
    """A chapter with its place; None for one that is not shown or lies outside the talk."""
    where = f"chapters[{i}]"
    if not isinstance(item, dict):
        raise InvalidInput("bad_chapters", f"`{where}` must be an object with a title and a startTime.")
    title, toc, segment = item.get("title"), item.get("toc"), item.get("segment")
    if not isinstance(title, str | None):
        raise InvalidInput("bad_chapters", f"`{where}.title` must be a string.")
    if not isinstance(toc, bool | None):
        raise InvalidInput("bad_chapters", f"`{where}.toc` must be true or false.")
    if item.get("startTime") is None and segment is None:
        raise InvalidInput("bad_chapters", f"`{where}` has neither a `startTime` nor a `segment`.")
    start, end = (moment(item.get(name), f"`{where}.{name}`") for name in ("startTime", "endTime"))
    if toc is False:
        repairs.count("hidden_chapters")
        return None
    repairs.count("chapter_members_left_out", len(item.keys() - _KEPT))
    if segment is not None:
        if isinstance(segment, bool) or not isinstance(segment, int) or not 0 <= segment < len(talk.places):
            raise InvalidInput(
                "bad_chapters", f"`{where}.segment` must be the number of a segment, from 0 to {len(talk.places) - 1}."
            )
        offset = talk.segments.offsets[talk.places[segment]]
    elif _beyond(start, talk):
        repairs.count("chapters_beyond_end")
        return None
    else:
        offset = _placed(start, where, talk, repairs)
    title = one_line(_CONTROL.sub(" ", title or ""))
    repairs.count("long_titles", len(title) > MAX_TITLE)
    return _Sent(title[:MAX_TITLE].strip(), start, end, offset)


def _beyond(start: int, talk: Joined) -> bool:
    if talk.duration == UNKNOWN:
        return False
    ends = talk.segments.ends
    known = not talk.segments.timed or (len(ends) and ends[-1] != UNKNOWN) or talk.duration > max(talk.segments.starts)
    return start >= talk.duration + (0 if known else _TAIL)


def _placed(start: int, where: str, talk: Joined, repairs: Repairs) -> int:
    """Where the segment begins that begins nearest to `start`: producers write whole seconds."""
    segments = talk.segments
    if segments.timed:
        known = [i for i in range(len(segments)) if segments.starts[i] != UNKNOWN]
        at = bisect_left(known, start, key=segments.starts.__getitem__)
        near = known[max(0, at - 1) : at + 1]
        return segments.offsets[min(near, key=lambda i: abs(segments.starts[i] - start))]
    if talk.duration == UNKNOWN:
        raise InvalidInput(
            "chapters_without_times",
            f"`{where}` has a time, and the transcript has none: send the `duration`, a `segment` for each chapter, or "
            "segments with times.",
        )
    repairs.count("chapters_by_share")
    wanted = len(talk.text) * start // talk.duration
    at = bisect_left(segments.offsets, wanted)
    return min(segments.offsets[max(0, at - 1) : at + 1], key=lambda offset: abs(offset - wanted))


def _in_order(sent: list[_Sent], repairs: Repairs) -> list[_Sent]:
    """By their places, which follow their times; among those of one segment, by time."""
    places = [(one.offset, one.start) for one in sent]
    unordered = sum(1 for i in range(1, len(places)) if places[i] < places[i - 1])
    ordered = sorted(sent, key=lambda one: (one.offset, one.start)) if unordered else sent
    latest = 0
    for one in ordered:
        if UNKNOWN != one.start < latest:  # its `segment` says another place than its time
            one.start, unordered = UNKNOWN, unordered + 1
        latest = max(latest, one.start)
    repairs.count("unordered_chapters", unordered)
    return ordered


def _distinct(sent: list[_Sent], repairs: Repairs) -> list[_Sent]:
    """One for each place: the first with a title, else the first."""
    kept: list[_Sent] = []
    for one in sent:
        if not kept or kept[-1].offset != one.offset:
            kept.append(one)
            continue
        repairs.count("chapters_without_text")
        if one.title and not kept[-1].title:
            kept[-1] = one
    return kept


def _chapters(sent: Sequence[_Sent], talk: Joined, repairs: Repairs) -> tuple[Chapter, ...]:
    """Chapters that share the text among them."""
    repairs.count("late_first_chapter", bool(sent) and sent[0].offset > 0)
    repairs.count("untitled_chapters", sum(1 for one in sent if not one.title))
    offsets = [one.offset for one in sent[1:]] + [len(talk.text)]
    times = [_begins(one, talk) for one in sent] + [_last(talk)]
    return tuple(
        Chapter(
            one.title or f"Chapter {i + 1}",
            one.offset if i else 0,
            offsets[i],
            times[i],
            _ends(_seconds(one.end), times[i], times[i + 1]),
        )
        for i, one in enumerate(sent)
    )


def _begins(one: _Sent, talk: Joined) -> float | None:
    """The producer's own second, which need not be that of a segment."""
    return talk.segments.second_at(one.offset) if one.start == UNKNOWN else one.start / 1000


def _ends(given: float | None, start: float | None, following: float | None) -> float | None:
    """The producer's end where it lies within the chapter, else the start of the next one."""
    fits = given is not None and start is not None and start < given and (following is None or given <= following)
    return given if fits else following


def _last(talk: Joined) -> float | None:
    return talk.segments.last_second(len(talk.text)) if talk.duration == UNKNOWN else talk.duration / 1000


def _seconds(ms: int) -> float | None:
    return None if ms == UNKNOWN else ms / 1000
