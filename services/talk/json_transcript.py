"""Segments as JSON: our own members, and those of a Podcasting 2.0 transcript."""

from collections.abc import Sequence
from typing import Any

import orjson

from services.errors import InvalidInput
from services.talk.row import Row, check_count, checked_speaker, moment, one_line

_OURS = ("text", "start", "end")
_PODCASTING = ("body", "startTime", "endTime")


def own_segments(value: Any) -> list[Row]:
    """The member `segments`. A text that ends in a line break ends a paragraph.

    Raises InvalidInput (`bad_segments`, `bad_time`) or TooLarge (`too_many_segments`).
    """
    return _rows(value, "segments", _OURS, strict=True)


def podcasting_segments(content: Any) -> list[Row]:
    """A Podcasting 2.0 transcript, as a text or decoded. Other members than those of the format are passed over.

    What recognisers write (Whisper and its like) has the same list with the members of our own: it is read as well.

    Raises InvalidInput (`bad_transcript`) for what is none, else as `own_segments`.
    """
    if isinstance(content, str):
        try:
            content = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise InvalidInput("bad_transcript", f"The transcript is not JSON: {error}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("segments"), list):
        raise InvalidInput("bad_transcript", "A transcript of type application/json is an object with `segments`.")
    items = content["segments"]
    first = items[0] if items and isinstance(items[0], dict) else {}
    members = _OURS if "text" in first and "body" not in first else _PODCASTING
    return _rows(items, "transcript.segments", members, strict=False)


def _rows(items: Any, name: str, members: tuple[str, str, str], *, strict: bool) -> list[Row]:
    if not isinstance(items, list):
        raise InvalidInput("bad_segments", f"`{name}` must be a list.")
    check_count(len(items))
    return [_row(item, i, name, members, strict=strict) for i, item in enumerate(items)]


def _row(item: Any, i: int, name: str, members: Sequence[str], *, strict: bool) -> Row:
    words, begins, ends = members
    if not isinstance(item, dict) or not isinstance(item.get(words), str):
        raise InvalidInput("bad_segments", f"`{name}[{i}]` must be an object with a `{words}`, a string.")
    if strict and (unknown := item.keys() - {*members, "speaker"}):
        raise InvalidInput(
            "bad_segments",
            f"`{name}[{i}]` has the unknown member {sorted(unknown)[0][:80]!r}: a segment has start, end, speaker "
            "and text.",
        )
    text = item[words]
    return Row(
        one_line(text),
        moment(item.get(begins), f"`{name}[{i}].{begins}`"),
        moment(item.get(ends), f"`{name}[{i}].{ends}`"),
        checked_speaker(item.get("speaker"), f"`{name}[{i}].speaker`"),
        i,
        strict and text.endswith("\n"),
    )
