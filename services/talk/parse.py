"""Parsing of a talk document into its text, segments and chapters; and links that play a recording from a time.

A talk has one of `text`, `segments` and `transcript`. Links are Media Fragments (`#t=`) or a template of the index.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from services.errors import InvalidInput, TooLarge
from services.talk.chapters import parse_producer_chapters
from services.talk.model import UNKNOWN_TIME, Talk
from services.talk.normalise import RepairCounter, TranscriptRow, join_segments, parse_time
from services.talk.readers import parse_plain_transcript, parse_podcasting_transcript, parse_segments, parse_subtitles

TALK_MEMBERS = frozenset({"kind", "description", "segments", "transcript", "chapters", "duration", "url"})
VTT_TYPE, SRT_TYPE, PODCASTING_TYPE, PLAIN_TYPE = "text/vtt", "application/x-subrip", "application/json", "text/plain"
TRANSCRIPT_TYPES = {
    VTT_TYPE: VTT_TYPE,
    SRT_TYPE: SRT_TYPE,
    "application/srt": SRT_TYPE,
    "text/srt": SRT_TYPE,
    PODCASTING_TYPE: PODCASTING_TYPE,
    PLAIN_TYPE: PLAIN_TYPE,
}
_SOURCES = ("text", "segments", "transcript")

DEFAULT_LINK_TEMPLATE = "{url}#t={start}"
MAX_URL_CHARACTERS = 2000  # characters
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\\"<>^`{}|]")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_PLACEHOLDER_NAMES = frozenset({"url", "id", "start"})
# A relative address must not begin with a scheme.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def parse_talk(value: Mapping[str, Any], max_text_bytes: int) -> tuple[str, Talk]:
    """Return text and talk of a talk document; its repairs are in the talk. Raises InvalidInput or TooLarge."""
    repairs = RepairCounter()
    description = value.get("description")
    if not isinstance(description, str | None):
        raise InvalidInput("bad_description", "`description` must be a string.")
    duration = parse_time(value.get("duration"), "`duration`")
    if duration == 0:
        raise InvalidInput("bad_time", "`duration` must be more than 0.")
    url = validate_recording_url(value.get("url"))
    transcript = join_segments(_rows(value, repairs), duration, repairs)
    if len(transcript.text.encode()) + len((description or "").encode()) > max_text_bytes:
        raise TooLarge(
            "transcript_too_large",
            f"The words of a talk and its description may have at most {max_text_bytes:,} bytes; split it.",
            limit=max_text_bytes,
        )
    chapters = parse_producer_chapters(value.get("chapters"), transcript, repairs)
    seconds = transcript.duration / 1000 if duration != UNKNOWN_TIME else None
    return transcript.text, Talk(transcript.segments, description or "", chapters, seconds, url, repairs.repairs())


def _rows(value: Mapping[str, Any], repairs: RepairCounter) -> list[TranscriptRow]:
    """Return the rows of the transcript from its one source."""
    sources = [name for name in _SOURCES if value.get(name) is not None]
    if len(sources) > 1:
        raise InvalidInput(
            "several_transcripts", f"A talk may have only one of text, segments and transcript, not {sources}."
        )
    match sources:
        case ["text"]:
            if not isinstance(value["text"], str):
                raise InvalidInput("bad_text", "`text` must be a string.")
            return parse_plain_transcript(value["text"])
        case ["segments"]:
            return parse_segments(value["segments"])
        case ["transcript"]:
            return _transcript(value["transcript"], repairs)
    raise InvalidInput("missing_text", "A talk needs a `text`, `segments` or a `transcript`.")


def _transcript(value: Any, repairs: RepairCounter) -> list[TranscriptRow]:
    if not isinstance(value, dict) or value.keys() != {"type", "text"} or not isinstance(value["type"], str):
        raise InvalidInput("bad_transcript", "`transcript` must be an object with a `type` and a `text`.")
    kind, content = TRANSCRIPT_TYPES.get(value["type"].partition(";")[0].strip().lower()), value["text"]
    if kind is None:
        raise InvalidInput(
            "unknown_transcript_type",
            f"The transcript type {value['type'][:80]!r} is unknown; send one of {', '.join(TRANSCRIPT_TYPES)}.",
        )
    if kind == PODCASTING_TYPE:
        return parse_podcasting_transcript(content)
    if not isinstance(content, str):
        raise InvalidInput("bad_transcript", f"`transcript.text` of the type {kind} must be a string.")
    if not content.strip("\ufeff \t\r\n"):
        raise InvalidInput("empty_transcript", "The transcript has no words.")
    match kind:
        case "text/vtt":
            return parse_subtitles(content, "vtt", repairs)
        case "application/x-subrip":
            return parse_subtitles(content, "srt", repairs)
    return parse_plain_transcript(content)


def validate_recording_url(value: Any) -> str:
    """Return the address of a recording: http, https or relative, empty for None. Raises InvalidInput (`bad_url`)."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_URL_CHARACTERS or _UNPRINTABLE.search(value):
        raise InvalidInput("bad_url", f"`url` must be an escaped URL of at most {MAX_URL_CHARACTERS:,} characters.")
    if not _is_safe_address(value):
        raise InvalidInput("bad_url", "`url` must be an http, https or relative address.")
    return value


def validate_link_template(template: str) -> str:
    """Return the template. Raises ValueError if it cannot give a usable address."""
    placeholders = _PLACEHOLDER.findall(template)
    if unknown := set(placeholders) - _PLACEHOLDER_NAMES:
        raise ValueError(f"`link` has the unknown placeholder {{{sorted(unknown)[0][:40]}}}: use url, id and start")
    if _UNPRINTABLE.search(_PLACEHOLDER.sub("", template)):
        raise ValueError("`link` must be an escaped URL with the placeholders {url}, {id} and {start}")
    if not {"url", "id"} & set(placeholders) or "start" not in placeholders or placeholders.count("url") > 1:
        raise ValueError("`link` must name the talk by {url}, once, or {id}, and its {start}")
    if not _is_safe_address(_PLACEHOLDER.sub("x", template)):  # a value must not become a scheme such as javascript:
        raise ValueError("`link` must be an http, https or relative address")
    return template


def build_link(template: str | None, url: str, document_id: str, start: float | None) -> str | None:
    """Return the address that plays a talk from `start` seconds, or None if a part of it is unknown.

    `{url}` at the beginning is inserted unchanged, elsewhere escaped. An unknown time is 0. The template's fragment
    replaces a fragment of the recording's address. Times are whole seconds, rounded down, which every player accepts.
    """
    template = template or DEFAULT_LINK_TEMPLATE
    if "{url}" in template and not url:
        return None
    prefix = url
    if template.startswith("{url}") and "#" in template:
        prefix = url.partition("#")[0]
    values = {"id": quote(document_id, safe=""), "start": str(int(start or 0))}

    def fill(match: re.Match[str]) -> str:
        if match[1] != "url":
            return values[match[1]]
        return prefix if match.start() == 0 else quote(url, safe="")

    return _PLACEHOLDER.sub(fill, template)


def _is_safe_address(address: str) -> bool:
    """Return whether an address is http, https or relative.

    Browsers would execute `javascript:` and the like on a click.
    """
    if _SCHEME.match(address) is None:
        return True
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets without an IPv6 address
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)
