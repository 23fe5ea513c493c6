"""Chapters in exchange formats: reading a producer's chapters and writing chapters for players.

A producer sends Podcasting 2.0 chapters JSON or a list of the same members; each chapter is placed in the text and
kept. Players read Podcasting 2.0, WebVTT and the chapter lines of a YouTube description. `format_segments` and
`format_chapters` return a stored talk in the form in which it was sent.
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

MAX_CHAPTERS = 1000
MAX_TITLE_CHARACTERS = 1000  # characters
# YouTube's minimum for a list of chapters (support.google.com, Video chapters). It ignores shorter lists.
_MIN_YOUTUBE_CHAPTERS, _MIN_YOUTUBE_SECONDS = 3, 10
# YouTube descriptions must not contain angle brackets.
_BRACKETS = str.maketrans("<>", "‹›")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KNOWN_MEMBERS = frozenset({"title", "startTime", "endTime", "segment", "toc"})
# Without ends and a duration, a talk is taken to end this long after the last start.
_TAIL = 600_000  # milliseconds
# Producers round times, so a chapter time within this distance of its segment agrees with it.
_NEAR = 5000  # milliseconds


def parse_producer_chapters(value: Any, talk: JoinedTranscript, repairs: RepairCounter) -> tuple[Chapter, ...] | None:
    """Return the producer's chapters placed in the text, or None without any (or if none fits, which the repairs say).

    Raises InvalidInput (`bad_chapters`, `bad_time`, `chapters_without_times`) or TooLarge (`too_many_chapters`).
    """
    items = value.get("chapters") if isinstance(value, dict) else value
    if value is None or items == []:
        return None
    if not isinstance(items, list):
        raise InvalidInput("bad_chapters", "`chapters` must be a list, or an object with a list `chapters`.")
    if len(items) > MAX_CHAPTERS:
        raise TooLarge("too_many_chapters", f"A talk may have at most {MAX_CHAPTERS:,} chapters.", limit=MAX_CHAPTERS)
    times = _SegmentTimes(talk)
    parsed = (_parse_chapter(item, i, talk, times, repairs) for i, item in enumerate(items))
    sent = [chapter for chapter in parsed if chapter is not None]
    return _place_chapters(_deduplicate_chapters(_sort_chapters(sent, repairs), repairs), talk, times, repairs) or None


@dataclass(slots=True)
class _SentChapter:
    title: str
    start: int
    end: int
    offset: int


class _SegmentTimes:
    """An index of segment starts, for up to 1,000 chapters of 100,000 segments."""

    def __init__(self, talk: JoinedTranscript) -> None:
        self._segments = talk.segments
        self._known = [i for i, start in enumerate(talk.segments.starts) if start != UNKNOWN_TIME]
        self.timed = bool(self._known)
        last = talk.segments.starts[self._known[-1]] if self._known else UNKNOWN_TIME
        ends = not self._known or talk.segments.ends[-1] != UNKNOWN_TIME or talk.duration > last
        self._end = talk.duration + (0 if ends else _TAIL) if talk.duration != UNKNOWN_TIME else None
        self._first_segments = sorted(set(talk.first_segments))

    def has_ended(self, moment: int) -> bool:
        """Return whether the talk has ended by `moment`, as far as known."""
        return self._end is not None and moment >= self._end

    def nearest(self, moment: int) -> int:
        """Return the first character of the segment that starts nearest to `moment`, because producers write whole
        seconds.
        """
        starts = self._segments.starts
        at = bisect_left(self._known, moment, key=starts.__getitem__)
        near = self._known[max(0, at - 1) : at + 1]
        return self._segments.offsets[min(near, key=lambda i: abs(starts[i] - moment))]

    def within(self, segment: int, moment: int) -> int | None:
        """Return the character at `moment` within a sent segment (which may have been split), or None if they
        contradict.
        """
        offsets = self._segments.offsets
        near, at = self.nearest(moment), bisect_right(self._first_segments, segment)
        if near >= offsets[segment] and (at == len(self._first_segments) or near < offsets[self._first_segments[at]]):
            return near
        start = self.second_at(offsets[segment])
        return offsets[segment] if start is not None and abs(round(start * 1000) - moment) <= _NEAR else None

    def second_at(self, offset: int) -> float | None:
        """Return the same as `Segments.second_at`, by binary search."""
        at = bisect_right(self._known, self._segments.at(offset)) - 1
        return None if at < 0 else self._segments.starts[self._known[at]] / 1000


def _parse_chapter(
    item: Any, i: int, talk: JoinedTranscript, times: _SegmentTimes, repairs: RepairCounter
) -> _SentChapter | None:
    """Return a chapter with its place, or None for a hidden one or one outside the talk."""
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
        if isinstance(segment, bool) or not isinstance(segment, int) or not 0 <= segment < len(talk.first_segments):
            raise InvalidInput(
                "bad_chapters",
                f"`{where}.segment` must be the number of a segment, from 0 to {len(talk.first_segments) - 1}.",
            )
        first = talk.first_segments[segment]
        offset = talk.segments.offsets[first]
        if start != UNKNOWN_TIME and times.timed:
            inside = times.within(first, start)
            if inside is None:
                start = end = UNKNOWN_TIME
                repairs.count("chapter_times")
            else:
                offset = inside
    elif times.has_ended(start):
        repairs.count("chapters_beyond_end")
        return None
    else:
        offset = times.nearest(start) if times.timed else _proportional_start(start, where, talk, repairs)
    title = collapse_white_space(_CONTROL.sub(" ", title or ""))
    repairs.count("long_titles", len(title) > MAX_TITLE_CHARACTERS)
    return _SentChapter(title[:MAX_TITLE_CHARACTERS].strip(), start, end, offset)


def _proportional_start(start: int, where: str, talk: JoinedTranscript, repairs: RepairCounter) -> int:
    """Return the segment start at the same share of the text as the time is of the recording, for transcripts without
    times.
    """
    if talk.duration == UNKNOWN_TIME:
        raise InvalidInput(
            "chapters_without_times",
            f"`{where}` has a time, but the transcript has none: send the `duration`, a `segment` for each chapter, or "
            "segments with times.",
        )
    repairs.count("chapters_by_share")
    position, offsets = len(talk.text) * start // talk.duration, talk.segments.offsets
    at = bisect_left(offsets, position)
    return min(offsets[max(0, at - 1) : at + 1], key=lambda offset: abs(offset - position))


def _sort_chapters(sent: list[_SentChapter], repairs: RepairCounter) -> list[_SentChapter]:
    """Sort chapters by place, and within one segment by time."""
    positions = [(chapter.offset, chapter.start) for chapter in sent]
    unordered = sum(1 for i in range(1, len(positions)) if positions[i] < positions[i - 1])
    ordered = sorted(sent, key=lambda chapter: (chapter.offset, chapter.start)) if unordered else sent
    latest = 0
    for chapter in ordered:
        if UNKNOWN_TIME != chapter.start < latest:  # its `segment` contradicts its time
            chapter.start, unordered = UNKNOWN_TIME, unordered + 1
        latest = max(latest, chapter.start)
    repairs.count("unordered_chapters", unordered)
    return ordered


def _deduplicate_chapters(sent: list[_SentChapter], repairs: RepairCounter) -> list[_SentChapter]:
    """Keep one chapter for each place: the first with a title, else the first."""
    kept: list[_SentChapter] = []
    for chapter in sent:
        if not kept or kept[-1].offset != chapter.offset:
            kept.append(chapter)
            continue
        repairs.count("chapters_without_text")
        if chapter.title and not kept[-1].title:
            kept[-1] = chapter
    return kept


def _place_chapters(
    sent: Sequence[_SentChapter], talk: JoinedTranscript, times: _SegmentTimes, repairs: RepairCounter
) -> tuple[Chapter, ...]:
    """Return chapters that cover the text from the first one on. Text before it belongs to no chapter."""
    repairs.count("untitled_chapters", sum(1 for entry in sent if not entry.title))
    offsets = [entry.offset for entry in sent[1:]] + [len(talk.text)]
    # The producer's time need not be the start of a segment.
    starts = [times.second_at(entry.offset) if entry.start == UNKNOWN_TIME else entry.start / 1000 for entry in sent]
    for i in range(len(sent) - 2, -1, -1):  # a segment's start may be slightly after the next chapter's time
        before, after = starts[i], starts[i + 1]
        if sent[i].start == UNKNOWN_TIME and before is not None and after is not None:
            starts[i] = min(before, after)
    ends = [*starts[1:], _last(talk)]
    # A recording continues after the last word; only the producer knows how long.
    latest = [*starts[1:], ends[-1] if talk.duration_given else None]
    chapters = []
    for i, entry in enumerate(sent):
        end, start, sent_end = ends[i], starts[i], _seconds(entry.end)
        if _fits(sent_end, start, latest[i]):
            end = sent_end
        else:
            repairs.count("chapter_ends", sent_end is not None)
        chapters.append(Chapter(entry.title or f"Chapter {i + 1}", entry.offset, offsets[i], start, end))
    return tuple(chapters)


def _fits(end: float | None, start: float | None, latest: float | None) -> bool:
    """Return whether the producer's end lies within the chapter."""
    return end is not None and start is not None and start < end and (latest is None or end <= latest)


def _last(talk: JoinedTranscript) -> float | None:
    return talk.segments.last_second(len(talk.text)) if talk.duration == UNKNOWN_TIME else talk.duration / 1000


def _seconds(ms: int) -> float | None:
    return None if ms == UNKNOWN_TIME else ms / 1000


def format_podcasting(chapters: Sequence[Chapter], title: str, url: str) -> dict[str, Any]:
    """Return Podcasting 2.0 chapters JSON. Raises InvalidInput (`chapters_untimed`)."""
    document: dict[str, Any] = {"version": "1.2.0"}
    if title:
        document["title"] = title
    if url:
        document["fileName"] = url
    listed = []
    for chapter, start in _require_start_times(chapters):
        entry: dict[str, Any] = {"startTime": start, "title": chapter.title}
        if chapter.end_time is not None and chapter.end_time > start:
            entry["endTime"] = chapter.end_time
        listed.append(entry)
    return document | {"chapters": listed}


def format_webvtt(chapters: Sequence[Chapter]) -> str:
    """Return a WebVTT track of chapters. A last chapter without an end gets one a second after its start.

    Raises InvalidInput (`chapters_untimed`).
    """
    cues = ["WEBVTT\n"]
    for number, (chapter, start) in enumerate(_require_start_times(chapters), 1):
        end = chapter.end_time if chapter.end_time is not None and chapter.end_time > start else start + 1
        cues.append(
            f"{number}\n{format_clock(start)} --> {format_clock(end)}\n{html.escape(chapter.title, quote=False)}\n"
        )
    return "\n".join(cues)


def format_youtube(chapters: Sequence[Chapter]) -> str:
    """Return the chapter lines of a YouTube description. The first begins at 0:00 and includes everything before it.

    Raises InvalidInput (`chapters_untimed`, `not_for_youtube`).
    """
    timed = _require_start_times(chapters)
    starts = [0.0, *(start for _, start in timed[1:])]
    ends = [*starts[1:], timed[-1][0].end_time]
    short = next(
        (i for i, end in enumerate(ends) if end is not None and int(end) - int(starts[i]) < _MIN_YOUTUBE_SECONDS), None
    )
    if len(timed) < _MIN_YOUTUBE_CHAPTERS or short is not None:
        reason = (
            f"there are {len(timed)}"
            if short is None
            else f"{chapters[short].title[:100]!r} at {format_short_clock(starts[short])} is shorter"
        )
        raise InvalidInput(
            "not_for_youtube", f"YouTube needs three or more chapters of ten seconds or more each; {reason}."
        )
    lines = [
        f"{format_short_clock(start)} {chapter.title.translate(_BRACKETS)}"
        for (chapter, _), start in zip(timed, starts, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _require_start_times(chapters: Sequence[Chapter]) -> list[tuple[Chapter, float]]:
    """Return the chapters with their starts in seconds."""
    timed = [(chapter, chapter.start_time) for chapter in chapters if chapter.start_time is not None]
    if len(timed) < len(chapters):
        raise InvalidInput(
            "chapters_untimed", "The transcript has no times, so its chapters have none: send segments with times."
        )
    return timed


def format_clock(seconds: float) -> str:
    """Format a time of a WebVTT cue: `HH:MM:SS.mmm`."""
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def format_short_clock(seconds: float) -> str:
    """Format a time as people write it: `M:SS`, from an hour on `H:MM:SS`."""
    whole = int(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}"
    return minutes if whole < 3600 else f"{whole // 3600}:{minutes:0>5}"


def format_segments(text: str, segments: Segments) -> list[dict[str, Any]]:
    """Return the segments as objects. A trailing line break of a text is part of the transcript."""
    ends = [*segments.offsets[1:], len(text)]
    listed = []
    for i, offset in enumerate(segments.offsets):
        entry: dict[str, Any] = {}
        if segments.starts[i] != UNKNOWN_TIME:
            entry["start"] = segments.starts[i] / 1000
        if segments.ends[i] != UNKNOWN_TIME:
            entry["end"] = segments.ends[i] / 1000
        if segments.speakers[i] != UNKNOWN_TIME:
            entry["speaker"] = segments.names[segments.speakers[i]]
        listed.append(entry | {"text": text[offset : ends[i]].removesuffix(" ")})
    return listed


def format_chapters(chapters: Sequence[Chapter], segments: Segments) -> list[dict[str, Any]]:
    """Return a producer's chapters, each with the number of the segment at which it begins."""
    listed = []
    for chapter in chapters:
        entry: dict[str, Any] = {"segment": segments.at(chapter.start), "title": chapter.title}
        if chapter.start_time is not None:
            entry["startTime"] = chapter.start_time
        if chapter.end_time is not None:
            entry["endTime"] = chapter.end_time
        listed.append(entry)
    return listed
