"""The chapters of a producer: Podcasting 2.0 chapters JSON or a list of the same, placed in the text. They are kept."""

import re
from bisect import bisect_left, bisect_right
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
# Producers round: a time and a segment that are no further apart say the same.
_NEAR = 5000


class _Times:
    """When the segments of a talk begin, for many questions: there may be 1,000 chapters and 100,000 segments."""

    def __init__(self, talk: Joined) -> None:
        self._segments = talk.segments
        self._known = [i for i, start in enumerate(talk.segments.starts) if start != UNKNOWN]
        self.timed = bool(self._known)
        last = talk.segments.starts[self._known[-1]] if self._known else UNKNOWN
        ends = not self._known or talk.segments.ends[-1] != UNKNOWN or talk.duration > last
        self._end = talk.duration + (0 if ends else _TAIL) if talk.duration != UNKNOWN else None
        self._places = sorted(set(talk.places))

    def beyond(self, moment: int) -> bool:
        """Whether the talk is over by then, as far as anybody knows."""
        return self._end is not None and moment >= self._end

    def nearest(self, moment: int) -> int:
        """The character at which the segment begins that begins nearest: producers write whole seconds."""
        starts = self._segments.starts
        at = bisect_left(self._known, moment, key=starts.__getitem__)
        near = self._known[max(0, at - 1) : at + 1]
        return self._segments.offsets[min(near, key=lambda i: abs(starts[i] - moment))]

    def within(self, place: int, moment: int) -> int | None:
        """The character of a sent segment (which may have been cut) where `moment` is; None: it contradicts."""
        offsets = self._segments.offsets
        near, at = self.nearest(moment), bisect_right(self._places, place)
        if near >= offsets[place] and (at == len(self._places) or near < offsets[self._places[at]]):
            return near
        begins = self.second_at(offsets[place])
        return offsets[place] if begins is not None and abs(round(begins * 1000) - moment) <= _NEAR else None

    def second_at(self, offset: int) -> float | None:
        """As that of the segments."""
        at = bisect_right(self._known, self._segments.at(offset)) - 1
        return None if at < 0 else self._segments.starts[self._known[at]] / 1000


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
    times = _Times(talk)
    sent = [one for i, item in enumerate(items) if (one := _read(item, i, talk, times, repairs)) is not None]
    return _chapters(_distinct(_in_order(sent, repairs), repairs), talk, times, repairs) or None


def _read(item: Any, i: int, talk: Joined, times: _Times, repairs: Repairs) -> _Sent | None:
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
        place = talk.places[segment]
        offset = talk.segments.offsets[place]
        if start != UNKNOWN and times.timed:
            found = times.within(place, start)
            if found is None:
                start = end = UNKNOWN
                repairs.count("chapter_times")
            else:
                offset = found
    elif times.beyond(start):
        repairs.count("chapters_beyond_end")
        return None
    else:
        offset = times.nearest(start) if times.timed else _shared(start, where, talk, repairs)
    title = one_line(_CONTROL.sub(" ", title or ""))
    repairs.count("long_titles", len(title) > MAX_TITLE)
    return _Sent(title[:MAX_TITLE].strip(), start, end, offset)


def _shared(start: int, where: str, talk: Joined, repairs: Repairs) -> int:
    """Where a transcript without times is as far on as the recording, at the beginning of a segment."""
    if talk.duration == UNKNOWN:
        raise InvalidInput(
            "chapters_without_times",
            f"`{where}` has a time, and the transcript has none: send the `duration`, a `segment` for each chapter, or "
            "segments with times.",
        )
    repairs.count("chapters_by_share")
    wanted, offsets = len(talk.text) * start // talk.duration, talk.segments.offsets
    at = bisect_left(offsets, wanted)
    return min(offsets[max(0, at - 1) : at + 1], key=lambda offset: abs(offset - wanted))


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


def _chapters(sent: Sequence[_Sent], talk: Joined, times: _Times, repairs: Repairs) -> tuple[Chapter, ...]:
    """Chapters that have the text from the first one on among them: an opening without a title is in none."""
    repairs.count("untitled_chapters", sum(1 for one in sent if not one.title))
    offsets = [one.offset for one in sent[1:]] + [len(talk.text)]
    # the producer's own second need not be that of a segment
    starts = [times.second_at(one.offset) if one.start == UNKNOWN else one.start / 1000 for one in sent]
    for i in range(len(sent) - 2, -1, -1):  # the segment's second may be a moment after the next one's own
        before, after = starts[i], starts[i + 1]
        if sent[i].start == UNKNOWN and before is not None and after is not None:
            starts[i] = min(before, after)
    ends = [*starts[1:], _last(talk)]
    # A recording goes on after the last word: how long, the producer knows.
    latest = [*starts[1:], ends[-1] if talk.duration_given else None]
    made = []
    for i, one in enumerate(sent):
        end, start, given = ends[i], starts[i], _seconds(one.end)
        if _fits(given, start, latest[i]):
            end = given
        else:
            repairs.count("chapter_ends", given is not None)
        made.append(Chapter(one.title or f"Chapter {i + 1}", one.offset, offsets[i], start, end))
    return tuple(made)


def _fits(given: float | None, start: float | None, latest: float | None) -> bool:
    """Whether the producer's end lies within the chapter."""
    return given is not None and start is not None and start < given and (latest is None or given <= latest)


def _last(talk: Joined) -> float | None:
    return talk.segments.last_second(len(talk.text)) if talk.duration == UNKNOWN else talk.duration / 1000


def _seconds(ms: int) -> float | None:
    return None if ms == UNKNOWN else ms / 1000
