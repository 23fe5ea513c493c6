"""The chapters of a producer: Podcasting 2.0 chapters JSON or a list of the same, placed in the text. They are kept.

Chapters in the forms that players read: Podcasting 2.0, WebVTT, lines for a description on YouTube.

A stored talk in the form in which it is sent: what is read back is the same talk.
"""

import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.errors import InvalidInput, TooLarge
from services.talk.model import UNKNOWN_TIME, Chapter, Segments
from services.talk.normalise import JoinedTranscript, RepairCounter, collapse_white_space, parse_time

PODCASTING_TYPE, VTT_TYPE, PLAIN_TYPE = "application/json+chapters", "text/vtt", "text/plain"
# What YouTube asks of a list of chapters (support.google.com, Video chapters): below that it shows none.
_MIN_YOUTUBE_CHAPTERS, _MIN_YOUTUBE_SECONDS = 3, 10
# What a description there may not hold.
_BRACKETS = str.maketrans("<>", "‹›")


def format_podcasting(chapters: Sequence[Chapter], title: str, url: str) -> dict[str, Any]:
    """Podcasting 2.0 chapters JSON. Raises InvalidInput (`chapters_untimed`)."""
    whole: dict[str, Any] = {"version": "1.2.0"}
    if title:
        whole["title"] = title
    if url:
        whole["fileName"] = url
    listed = []
    for chapter, start in _require_start_times(chapters):
        one: dict[str, Any] = {"startTime": start, "title": chapter.title}
        if chapter.end_time is not None and chapter.end_time > start:
            one["endTime"] = chapter.end_time
        listed.append(one)
    return whole | {"chapters": listed}


def format_webvtt(chapters: Sequence[Chapter]) -> str:
    """A WebVTT track of chapters. A cue needs an end: of a last chapter without one it is a second after its start.

    Raises InvalidInput (`chapters_untimed`).
    """
    cues = ["WEBVTT\n"]
    for number, (chapter, start) in enumerate(_require_start_times(chapters), 1):
        end = chapter.end_time if chapter.end_time is not None and chapter.end_time > start else start + 1
        cues.append(
            f"{number}\n{_format_clock(start)} --> {_format_clock(end)}\n{html.escape(chapter.title, quote=False)}\n"
        )
    return "\n".join(cues)


def format_youtube(chapters: Sequence[Chapter]) -> str:
    """Lines for the description of a video: the first one at 0:00, in which what is said before counts to it.

    Raises InvalidInput (`chapters_untimed`, `not_for_youtube`).
    """
    timed = _require_start_times(chapters)
    starts = [0.0, *(start for _, start in timed[1:])]
    ends = [*starts[1:], timed[-1][0].end_time]
    short = next(
        (i for i, end in enumerate(ends) if end is not None and int(end) - int(starts[i]) < _MIN_YOUTUBE_SECONDS), None
    )
    if len(timed) < _MIN_YOUTUBE_CHAPTERS or short is not None:
        why = (
            f"there are {len(timed)}"
            if short is None
            else f"{chapters[short].title[:100]!r} at {_format_short_clock(starts[short])} is shorter"
        )
        raise InvalidInput(
            "not_for_youtube", f"YouTube shows chapters from three on, of ten seconds or more each; {why}."
        )
    lines = [
        f"{_format_short_clock(start)} {chapter.title.translate(_BRACKETS)}"
        for (chapter, _), start in zip(timed, starts, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _require_start_times(chapters: Sequence[Chapter]) -> list[tuple[Chapter, float]]:
    """The chapters with their starts in seconds."""
    timed = [(chapter, chapter.start_time) for chapter in chapters if chapter.start_time is not None]
    if len(timed) < len(chapters):
        raise InvalidInput(
            "chapters_untimed", "The transcript has no times, so its chapters have none: send it with segments that do."
        )
    return timed


def _format_clock(seconds: float) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def _format_short_clock(seconds: float) -> str:
    whole = int(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}"
    return minutes if whole < 3600 else f"{whole // 3600}:{minutes:0>5}"


def format_segments(text: str, segments: Segments) -> list[dict[str, Any]]:
    """The segments as objects. A line break at the end of a text is one that the transcript has there."""
    ends = [*segments.offsets[1:], len(text)]
    listed = []
    for i, offset in enumerate(segments.offsets):
        one: dict[str, Any] = {}
        if segments.starts[i] != UNKNOWN_TIME:
            one["start"] = segments.starts[i] / 1000
        if segments.ends[i] != UNKNOWN_TIME:
            one["end"] = segments.ends[i] / 1000
        if segments.speakers[i] != UNKNOWN_TIME:
            one["speaker"] = segments.names[segments.speakers[i]]
        listed.append(one | {"text": text[offset : ends[i]].removesuffix(" ")})
    return listed


def format_chapters(chapters: Sequence[Chapter], segments: Segments) -> list[dict[str, Any]]:
    """A producer's chapters by the segments at which they begin."""
    listed = []
    for chapter in chapters:
        one: dict[str, Any] = {"segment": segments.at(chapter.start), "title": chapter.title}
        if chapter.start_time is not None:
            one["startTime"] = chapter.start_time
        if chapter.end_time is not None:
            one["endTime"] = chapter.end_time
        listed.append(one)
    return listed


MAX_CHAPTERS = 1000
MAX_TITLE_CHARACTERS = 1000  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KNOWN_MEMBERS = frozenset({"title", "startTime", "endTime", "segment", "toc"})
# A transcript without ends and a talk without a duration end somewhere after the last start.
_TAIL = 600_000  # milliseconds
# Producers round: a time and a segment that are no further apart say the same.
_NEAR = 5000


class _SegmentTimes:
    """When the segments of a talk begin, for many questions: there may be 1,000 chapters and 100,000 segments."""

    def __init__(self, talk: JoinedTranscript) -> None:
        self._segments = talk.segments
        self._known = [i for i, start in enumerate(talk.segments.starts) if start != UNKNOWN_TIME]
        self.timed = bool(self._known)
        last = talk.segments.starts[self._known[-1]] if self._known else UNKNOWN_TIME
        ends = not self._known or talk.segments.ends[-1] != UNKNOWN_TIME or talk.duration > last
        self._end = talk.duration + (0 if ends else _TAIL) if talk.duration != UNKNOWN_TIME else None
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
class _SentChapter:
    title: str
    start: int
    end: int
    offset: int


def parse_producer_chapters(value: Any, talk: JoinedTranscript, repairs: RepairCounter) -> tuple[Chapter, ...] | None:
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
    times = _SegmentTimes(talk)
    sent = [one for i, item in enumerate(items) if (one := _parse_chapter(item, i, talk, times, repairs)) is not None]
    return _chapters(_deduplicate_chapters(_in_order(sent, repairs), repairs), talk, times, repairs) or None


def _parse_chapter(
    item: Any, i: int, talk: JoinedTranscript, times: _SegmentTimes, repairs: RepairCounter
) -> _SentChapter | None:
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
    start, end = (parse_time(item.get(name), f"`{where}.{name}`") for name in ("startTime", "endTime"))
    if toc is False:
        repairs.count("hidden_chapters")
        return None
    repairs.count("chapter_members_left_out", len(item.keys() - _KNOWN_MEMBERS))
    if segment is not None:
        if isinstance(segment, bool) or not isinstance(segment, int) or not 0 <= segment < len(talk.places):
            raise InvalidInput(
                "bad_chapters", f"`{where}.segment` must be the number of a segment, from 0 to {len(talk.places) - 1}."
            )
        place = talk.places[segment]
        offset = talk.segments.offsets[place]
        if start != UNKNOWN_TIME and times.timed:
            found = times.within(place, start)
            if found is None:
                start = end = UNKNOWN_TIME
                repairs.count("chapter_times")
            else:
                offset = found
    elif times.beyond(start):
        repairs.count("chapters_beyond_end")
        return None
    else:
        offset = times.nearest(start) if times.timed else _proportional_start(start, where, talk, repairs)
    title = collapse_white_space(_CONTROL.sub(" ", title or ""))
    repairs.count("long_titles", len(title) > MAX_TITLE_CHARACTERS)
    return _SentChapter(title[:MAX_TITLE_CHARACTERS].strip(), start, end, offset)


def _proportional_start(start: int, where: str, talk: JoinedTranscript, repairs: RepairCounter) -> int:
    """Where a transcript without times is as far on as the recording, at the beginning of a segment."""
    if talk.duration == UNKNOWN_TIME:
        raise InvalidInput(
            "chapters_without_times",
            f"`{where}` has a time, and the transcript has none: send the `duration`, a `segment` for each chapter, or "
            "segments with times.",
        )
    repairs.count("chapters_by_share")
    wanted, offsets = len(talk.text) * start // talk.duration, talk.segments.offsets
    at = bisect_left(offsets, wanted)
    return min(offsets[max(0, at - 1) : at + 1], key=lambda offset: abs(offset - wanted))


def _in_order(sent: list[_SentChapter], repairs: RepairCounter) -> list[_SentChapter]:
    """By their places, which follow their times; among those of one segment, by time."""
    places = [(one.offset, one.start) for one in sent]
    unordered = sum(1 for i in range(1, len(places)) if places[i] < places[i - 1])
    ordered = sorted(sent, key=lambda one: (one.offset, one.start)) if unordered else sent
    latest = 0
    for one in ordered:
        if UNKNOWN_TIME != one.start < latest:  # its `segment` says another place than its time
            one.start, unordered = UNKNOWN_TIME, unordered + 1
        latest = max(latest, one.start)
    repairs.count("unordered_chapters", unordered)
    return ordered


def _deduplicate_chapters(sent: list[_SentChapter], repairs: RepairCounter) -> list[_SentChapter]:
    """One for each place: the first with a title, else the first."""
    kept: list[_SentChapter] = []
    for one in sent:
        if not kept or kept[-1].offset != one.offset:
            kept.append(one)
            continue
        repairs.count("chapters_without_text")
        if one.title and not kept[-1].title:
            kept[-1] = one
    return kept


def _chapters(
    sent: Sequence[_SentChapter], talk: JoinedTranscript, times: _SegmentTimes, repairs: RepairCounter
) -> tuple[Chapter, ...]:
    """Chapters that have the text from the first one on among them: an opening without a title is in none."""
    repairs.count("untitled_chapters", sum(1 for one in sent if not one.title))
    offsets = [one.offset for one in sent[1:]] + [len(talk.text)]
    # the producer's own second need not be that of a segment
    starts = [times.second_at(one.offset) if one.start == UNKNOWN_TIME else one.start / 1000 for one in sent]
    for i in range(len(sent) - 2, -1, -1):  # the segment's second may be a moment after the next one's own
        before, after = starts[i], starts[i + 1]
        if sent[i].start == UNKNOWN_TIME and before is not None and after is not None:
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


def _last(talk: JoinedTranscript) -> float | None:
    return talk.segments.last_second(len(talk.text)) if talk.duration == UNKNOWN_TIME else talk.duration / 1000


def _seconds(ms: int) -> float | None:
    return None if ms == UNKNOWN_TIME else ms / 1000
