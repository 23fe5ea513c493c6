"""Readers of transcript formats: WebVTT and SubRip, JSON segments, Podcasting 2.0 transcripts, and plain text.

Each returns `TranscriptRow`s. Subtitles are parsed by webvtt-py (docs/decisions/0190). Speaker names before the words
(`Anna: Good morning.`) are taken out of the text if they are used consistently.
"""

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import orjson

from services.errors import InvalidInput, TooLarge
from services.talk.model import MAX_TIME_MS
from services.talk.normalise import (
    MAX_SEGMENTS,
    MAX_SPEAKER_CHARACTERS,
    RepairCounter,
    TranscriptRow,
    check_segment_count,
    collapse_white_space,
    parse_time,
    validate_speaker,
)

_SEGMENT_MEMBERS = ("text", "start", "end")
_PODCASTING = ("body", "startTime", "endTime")

# A name: one to four words of at most 40 characters; the first begins with a capital if its script has capitals.
_PREFIX = re.compile(r"([^\W\d_][\w.'’-]*(?: [\w.'’()-]+){0,3}) ?[:：] ?(?=\S)")
_MAX_NAME_CHARACTERS = 40
# Transcripts with names have one before nearly every paragraph; subtitles have one at each change of speaker.
_MIN_PREFIXED_SHARE = 0.8

_LINE = re.compile(r"[^\n]+")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
# Beginnings of other formats, whose times and tags would be indexed as words.
_WEBVTT = re.compile(r"WEBVTT(?:\s|$)")
# Possessive quantifiers (++, *+) never give back what they took. Without them 40 KB of blank lines took seven seconds.
_SUBRIP = re.compile(r"(?:\d++[^\S\n]*+\n)?\s*+(?:\d++:)?\d++:\d\d[.,]\d++\s*+-->")
_MARKUP = re.compile(r"<(?:!doctype|html|\?xml)\b", re.IGNORECASE)
# `str.replace` takes a tenth of the time of a regular expression, which would hold up other threads for 100 ms.
_BREAKS = ("\r\n", "\r", "\u2028", "\u2029", "\x85")

# `[^<>]` instead of `[^>]`: otherwise each `<` of a line with many would be searched to the end of the line.
_VOICE = re.compile(r"<v(?:\.[^\s<>]*+)?[ \t\n]++([^<>]*+)>")
_TAG = re.compile(r"</?[A-Za-z:.][^<>]*>|<\d[\d:.]*>|</>|\{\\[^{}]*\}")  # the last form is SubRip's: {\\an8}
# In rolling captions a cue begins with the last line of the cue before it. Below this share of the cues, the
# repetition is taken to be spoken.
_ROLLING = 0.25
# Markup is searched in a whole cue at once: 8 MiB of it held up all other threads for .2 s. A cue is a caption.
_MAX_CUE_CHARACTERS = 100_000
# A cue has a number, times, up to three lines and a blank line. webvtt-py takes 60 bytes for each line of a byte.
_MAX_SUBTITLE_LINES = 600_000


def parse_segments(value: Any) -> list[TranscriptRow]:
    """Return the rows of the member `segments`. A text that ends in a line break ends a paragraph.

    Raises InvalidInput (`bad_segments`, `bad_time`) or TooLarge (`too_many_segments`).
    """
    return _parse_json_rows(value, "segments", _SEGMENT_MEMBERS, strict=True)


def parse_podcasting_transcript(content: Any) -> list[TranscriptRow]:
    """Return the rows of a Podcasting 2.0 transcript, as a string or decoded; unknown members are ignored.

    Speech recognisers (Whisper and others) write the same list with the members of `segments`, which are read as well.

    Raises InvalidInput (`bad_transcript`, `too_many_values`) for anything else, otherwise as `parse_segments`.
    """
    if isinstance(content, str):
        try:
            content = _decode_json(content)
        except orjson.JSONDecodeError as error:
            raise InvalidInput("bad_transcript", f"The transcript is not JSON: {error}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("segments"), list):
        raise InvalidInput("bad_transcript", "A transcript of type application/json must be an object with `segments`.")
    items = content["segments"]
    first = items[0] if items and isinstance(items[0], dict) else {}
    members = _SEGMENT_MEMBERS if "text" in first and "body" not in first else _PODCASTING
    return _parse_json_rows(items, "transcript.segments", members, strict=False)


def _parse_json_rows(items: Any, name: str, members: tuple[str, str, str], *, strict: bool) -> list[TranscriptRow]:
    if not isinstance(items, list):
        raise InvalidInput("bad_segments", f"`{name}` must be a list.")
    check_segment_count(len(items))
    return [_row(item, i, name, members, strict=strict) for i, item in enumerate(items)]


def _row(item: Any, i: int, name: str, members: Sequence[str], *, strict: bool) -> TranscriptRow:
    words, begins, ends = members
    if not isinstance(item, dict) or not isinstance(item.get(words), str):
        raise InvalidInput("bad_segments", f"`{name}[{i}]` must be an object with a string `{words}`.")
    if strict and (unknown := item.keys() - {*members, "speaker"}):
        raise InvalidInput(
            "bad_segments",
            f"`{name}[{i}]` has the unknown member {min(unknown)[:80]!r}: a segment may have start, end, speaker "
            "and text.",
        )
    text = item[words]
    return TranscriptRow(
        collapse_white_space(text),
        parse_time(item.get(begins), f"`{name}[{i}].{begins}`"),
        parse_time(item.get(ends), f"`{name}[{i}].{ends}`"),
        validate_speaker(item.get("speaker"), f"`{name}[{i}].speaker`"),
        i,
        strict and text.endswith("\n"),
    )


def parse_subtitles(content: str, form: Literal["vtt", "srt"], repairs: RepairCounter) -> list[TranscriptRow]:
    """Return the cues of a WebVTT or SubRip file as rows, split where the voice changes.

    Raises InvalidInput (`bad_transcript`) for an invalid file, TooLarge (`too_many_segments`, `transcript_too_large`).
    """
    from webvtt import WebVTT  # imported here because it takes 50 ms
    from webvtt.errors import MalformedCaptionError, MalformedFileError

    text = content.lstrip("\ufeff \t\r\n")
    check_segment_count(text.count("-->"))  # before webvtt-py creates an object for each
    _check_line_count(text)
    try:
        captions = WebVTT.from_buffer([text], format=form).captions
    except (MalformedFileError, MalformedCaptionError):
        expected = "begins with WEBVTT" if form == "vtt" else "begins with the number 1 and a line of times"
        raise InvalidInput(
            "bad_transcript", f"The transcript does not match its type: such a file {expected}."
        ) from None
    if not captions and "-->" in text:
        raise InvalidInput("bad_transcript", "No cue of the transcript has readable times.")
    for caption in captions:
        if sum(map(len, caption.lines)) > _MAX_CUE_CHARACTERS:
            raise TooLarge(
                "transcript_too_large",
                f"A cue may have at most {_MAX_CUE_CHARACTERS:,} characters; that at {caption.start} has more.",
                limit=_MAX_CUE_CHARACTERS,
            )
    # Comments must not contain the arrow, so each one belongs to a cue.
    repairs.count("unread_cues", max(0, text.count("-->") - len(captions)))
    rows: list[TranscriptRow] = []
    for caption, lines in zip(
        captions, _remove_rolling_lines([caption.lines for caption in captions], repairs), strict=True
    ):
        start, end = caption.start_time.in_milliseconds(), caption.end_time.in_milliseconds()
        if max(start, end) > MAX_TIME_MS:
            raise InvalidInput("bad_time", f"The cue at {caption.start} is beyond the longest supported time.")
        voices = list(_voices("\n".join(lines)))
        whole, at, length = sum(len(words) for _, words in voices) or 1, 0, max(0, end - start)
        for speaker, words in voices:  # the voices of a cue share its time in proportion to their words
            begun, at = at, at + len(words)
            until = end if end < start else start + length * at // whole
            repairs.count("long_names", len(speaker) > MAX_SPEAKER_CHARACTERS)
            rows.append(TranscriptRow(words, start + length * begun // whole, until, speaker[:MAX_SPEAKER_CHARACTERS]))
    if any(row.speaker for row in rows):
        _propagate_speakers(rows)
    else:
        rows = extract_speakers(rows)
    for i, row in enumerate(rows):
        row.sent = i
    return rows


def _check_line_count(text: str) -> None:
    lines = text.count("\n") + text.count("\r")
    if lines > _MAX_SUBTITLE_LINES:
        raise TooLarge(
            "transcript_too_large",
            f"The transcript has {lines:,} lines; the limit is {_MAX_SUBTITLE_LINES:,}.",
            limit=_MAX_SUBTITLE_LINES,
        )


def _voices(raw: str) -> Iterator[tuple[str, str]]:
    """Yield (name or empty, words) of a cue. A cue without words yields one empty row, which is counted later."""
    if "<" not in raw:
        yield "", _strip_markup(raw)
        return
    before, *spans = _VOICE.split(raw)
    voices = [
        ("", _strip_markup(before)),
        *((_strip_markup(spans[i]), _strip_markup(spans[i + 1])) for i in range(0, len(spans), 2)),
    ]
    yield from [voice for voice in voices if voice[1]] or [("", "")]


def _strip_markup(raw: str) -> str:
    return collapse_white_space(html.unescape(_TAG.sub("", raw)))


def _propagate_speakers(rows: list[TranscriptRow]) -> None:
    """Fill in missing speakers: podcasts name a voice only where it changes."""
    speaker = ""
    for row in rows:
        row.speaker = speaker = row.speaker or speaker


def _remove_rolling_lines(cues: list[list[str]], repairs: RepairCounter) -> list[list[str]]:
    """Return the cues without the lines repeated from the cue before, if the file has rolling captions."""
    plain = [[words for line in cue if (words := _strip_markup(line))] for cue in cues]
    repeats = [_count_repeated_lines(plain[i - 1], plain[i]) if i else 0 for i in range(len(plain))]
    repeating = sum(1 for number in repeats if number)
    if repeating < max(2, _ROLLING * len(cues)):
        return cues
    repairs.count("repeated_captions", sum(repeats))
    kept = [[line for line in cue if _strip_markup(line)][number:] for cue, number in zip(cues, repeats, strict=True)]
    return kept


def _count_repeated_lines(before: list[str], cue: list[str]) -> int:
    """Count the lines at the start of `cue` that end `before`."""
    longest = min(len(before), len(cue), 4)
    return next((number for number in range(longest, 0, -1) if before[-number:] == cue[:number]), 0)


def parse_plain_transcript(content: str) -> list[TranscriptRow]:
    """Return the rows of a plain text, without times.

    A row is a line if names precede the words or the text has no blank lines, otherwise a paragraph.

    Raises InvalidInput (`bad_transcript`, `too_many_values`) if it is another format, TooLarge (`too_many_segments`).
    """
    text = content.lstrip("\ufeff")
    for line_break in _BREAKS:
        text = text.replace(line_break, "\n")
    if other := _detect_format(text.lstrip()):
        raise InvalidInput(
            "bad_transcript", f"The text is {other}, not plain text: send it as a `transcript` with its type."
        )
    lines = []
    for match in _LINE.finditer(text):
        if line := collapse_white_space(match[0]):
            lines.append(line)
        if len(lines) > MAX_SEGMENTS:  # The strings of all lines would take fifteen times the text.
            check_segment_count(text.count("\n") + 1)
    by_line = _plain_rows(lines)
    named = extract_speakers(by_line)
    if any(row.speaker for row in named) or not _BLANK_LINE.search(text.strip()):
        return named
    return _plain_rows([part for part in map(collapse_white_space, _BLANK_LINE.split(text)) if part])


def _detect_format(text: str) -> str | None:
    """Return the name of a format other than plain text, or None."""
    if _WEBVTT.match(text) and "-->" in text:
        return "WebVTT"
    if _SUBRIP.match(text):
        return "SubRip"
    if _MARKUP.match(text):
        return "HTML or XML"
    if not text.startswith(("{", "[")) or not text.rstrip().endswith(("}", "]")):
        return None
    try:
        _decode_json(text)
    except orjson.JSONDecodeError:  # "[Music] Good morning. [Applause]"
        return None
    return "JSON"


def _decode_json(text: str) -> Any:
    """Decode JSON within a string. Raises InvalidInput (`too_many_values`) and orjson.JSONDecodeError."""
    # numpy takes a tenth of a second to import, and only a process that reads documents needs it.
    from services.documents.json_structure import check_values

    raw = text.encode()
    check_values(raw)
    return orjson.loads(raw)


def _plain_rows(parts: list[str]) -> list[TranscriptRow]:
    return [TranscriptRow(part, sent=i, ends_paragraph=True) for i, part in enumerate(parts)]


def extract_speakers(rows: Sequence[TranscriptRow]) -> list[TranscriptRow]:
    """Return the rows with speaker names taken from their texts if names are used consistently, else unchanged.

    Consistent: the first row has a name, and either four of five rows have one or four of five names recur. A row
    without a name belongs to the speaker before it.
    """
    prefixes = [_name_prefix(row.text) for row in rows]
    names = Counter(name for name, _ in prefixes if name)
    prefixed = sum(names.values())
    if prefixed < 2 or not prefixes[0][0]:
        return list(rows)
    if prefixed < _MIN_PREFIXED_SHARE * sum(1 for row in rows if row.text):
        recurring = {name for name, count in names.items() if count > 1}
        recurrences = sum(names[name] for name in recurring)
        if recurrences < _MIN_PREFIXED_SHARE * prefixed or prefixes[0][0] not in recurring:
            return list(rows)
        names = Counter({name: names[name] for name in recurring})
    speaker, changed = "", []
    for row, (name, length) in zip(rows, prefixes, strict=True):
        has_name = name in names
        speaker = name if has_name else speaker
        text = row.text[length:] if has_name else row.text
        changed.append(TranscriptRow(text, row.start, row.end, speaker, row.sent, row.ends_paragraph))
    return changed


def _name_prefix(text: str) -> tuple[str, int]:
    """Return a leading name and the length of its prefix with the colon; empty without a name."""
    match = _PREFIX.match(text[: _MAX_NAME_CHARACTERS + 3])
    if match is None or len(match[1]) > _MAX_NAME_CHARACTERS or match[1][0].islower():
        return "", 0
    return match[1], match.end()
