"""The members that make a document talk, checked: what is sent becomes a text, segments and chapters."""

from collections.abc import Mapping
from typing import Any

from services.errors import InvalidInput, TooLarge
from services.talk.given_chapters import given_chapters
from services.talk.joining import joined
from services.talk.json_transcript import own_segments, podcasting_segments
from services.talk.links import checked_url
from services.talk.plain_text import paragraphs
from services.talk.repairs import Repairs
from services.talk.row import Row, moment
from services.talk.segments import UNKNOWN
from services.talk.subtitles import subtitles
from services.talk.talk import Talk

MEMBERS = frozenset({"kind", "description", "segments", "transcript", "chapters", "duration", "url"})
VTT, SRT, PODCASTING, PLAIN = "text/vtt", "application/x-subrip", "application/json", "text/plain"
TYPES = {VTT: VTT, SRT: SRT, "application/srt": SRT, "text/srt": SRT, PODCASTING: PODCASTING, PLAIN: PLAIN}
_SOURCES = ("text", "segments", "transcript")


def read_talk(value: Mapping[str, Any], max_text_bytes: int) -> tuple[str, Talk]:
    """Text and talk of a document of this kind. Raises InvalidInput or TooLarge; what is mended is in the talk."""
    repairs = Repairs()
    description = value.get("description")
    if not isinstance(description, str | None):
        raise InvalidInput("bad_description", "`description` must be a string.")
    duration = moment(value.get("duration"), "`duration`")
    if duration == 0:
        raise InvalidInput("bad_time", "`duration` must be more than 0.")
    url = checked_url(value.get("url"))
    whole = joined(_rows(value, repairs), duration, repairs)
    if len(whole.text.encode()) + len((description or "").encode()) > max_text_bytes:
        raise TooLarge(
            "transcript_too_large",
            f"The words of a talk and its description may have {max_text_bytes:,} bytes; split it.",
            limit=max_text_bytes,
        )
    given = given_chapters(value.get("chapters"), whole, repairs)
    seconds = whole.duration / 1000 if duration != UNKNOWN else None
    return whole.text, Talk(whole.segments, description or "", given, seconds, url, repairs.made())


def _rows(value: Mapping[str, Any], repairs: Repairs) -> list[Row]:
    """What is said, from the one source that there may be."""
    sources = [name for name in _SOURCES if value.get(name) is not None]
    if len(sources) > 1:
        raise InvalidInput("several_transcripts", f"A talk has one of text, segments and transcript, not {sources}.")
    match sources:
        case ["text"]:
            if not isinstance(value["text"], str):
                raise InvalidInput("bad_text", "`text` must be a string.")
            return paragraphs(value["text"])
        case ["segments"]:
            return own_segments(value["segments"])
        case ["transcript"]:
            return _transcript(value["transcript"], repairs)
    raise InvalidInput("missing_text", "A talk needs a `text`, `segments` or a `transcript`.")


def _transcript(value: Any, repairs: Repairs) -> list[Row]:
    if not isinstance(value, dict) or value.keys() != {"type", "text"} or not isinstance(value["type"], str):
        raise InvalidInput("bad_transcript", "`transcript` must be an object with a `type` and a `text`.")
    kind, content = TYPES.get(value["type"].partition(";")[0].strip().lower()), value["text"]
    if kind is None:
        raise InvalidInput(
            "unknown_transcript_type",
            f"No transcript is read as {value['type'][:80]!r}; send one of {', '.join(TYPES)}.",
        )
    if kind == PODCASTING:
        return podcasting_segments(content)
    if not isinstance(content, str):
        raise InvalidInput("bad_transcript", f"`transcript.text` of the type {kind} must be a string.")
    if not content.strip("\ufeff \t\r\n"):
        raise InvalidInput("empty_transcript", "The transcript has no words.")
    match kind:
        case "text/vtt":
            return subtitles(content, "vtt", repairs)
        case "application/x-subrip":
            return subtitles(content, "srt", repairs)
    return paragraphs(content)
