"""Windows of a stored document: the fields that are searched of them, and how they are read back. Pure.

Mapping fields of a talk's chapters. Pure.

What is stored of talk beside its text, and how a mapping has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.documents.document import joined_text
from services.encoders.vectors import PackedVector, SparseVector, merge_max
from services.index_spec import IndexSpec
from services.talk.chapters import format_chapters, format_segments
from services.talk.model import TALK_KIND, Segments, Talk, chapter_windows, read_producer_chapters, window_ends

_STORED_INTEGER: Final = {"type": "integer", "index": False, "doc_values": False}
_STORED_SECONDS: Final = {"type": "float", "index": False, "doc_values": False}
_KEYWORD_FIELD: Final = {"type": "keyword"}
# These fields are searched and can be made again from the stored windows, so `_source` leaves them out.
EXCLUDED_CHAPTER_FIELDS: Final = ("chapters.sparse", "chapters.sparse.*", "chapters.words")


def chapter_mapping(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of chapters for an index that declares talk. `words` is the type of its lexical fields."""
    return {
        "chapters": {
            "type": "nested",
            "properties": {
                "number": _STORED_INTEGER,
                "title": {"type": "text", "index": False},
                "start": _STORED_INTEGER,
                "end": _STORED_INTEGER,
                "start_time": _STORED_SECONDS,
                "end_time": _STORED_SECONDS,
                "sparse": {"type": "rank_features"},
                "words": words,
            },
        },
        "chapter_titles": words,
        "chaptering": {"dynamic": False, "properties": {"engine": _KEYWORD_FIELD, "fingerprint": _KEYWORD_FIELD}},
    }


# What the client sent, in the form in which it is stored; a reindex carries it.
RAW_TALK_MEMBERS = ("kind", "description", "segments", "given", "given_titles", "duration", "url", "talk_repairs")
_CHAPTER = ("number", "title", "start", "end", "start_time", "end_time")
_UNINDEXED_OBJECT = {"type": "object", "enabled": False}
_SHOWN_ONLY = {"type": "keyword", "index": False, "doc_values": False}


def build_talk_members(talk: Talk) -> dict[str, Any]:
    """The members of a talk's `_source`. What it has not, is not there."""
    members: dict[str, Any] = {"kind": TALK_KIND, "segments": talk.segments.pack()}
    if talk.description:
        members["description"] = talk.description
    if talk.given is not None:
        members["given"] = [chapter.as_json(i) for i, chapter in enumerate(talk.given, 1)]
        # people name what nobody says: keyword search finds the talk by it, as it does by the description
        members["given_titles"] = [chapter.title for chapter in talk.given]
    if talk.duration is not None:
        members["duration"] = talk.duration
    if talk.url:
        members["url"] = talk.url
    if talk.repairs:
        members["talk_repairs"] = [repair.as_json() for repair in talk.repairs]
    return members


def read_chapters(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chapters of a stored talk: those that were made when it was encoded, until then the producer's."""
    listed = source.get("chapters", source.get("given", ()))
    return [{name: chapter[name] for name in _CHAPTER if name in chapter} for chapter in listed]


def read_segments(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The segments of a stored talk as they are sent."""
    return format_segments(source["text"], Segments.unpack(source["segments"]))


def read_talk_members(source: Mapping[str, Any]) -> dict[str, Any]:
    """A stored talk's own members in the form in which they are sent; `segments` are there instead of the text."""
    segments = Segments.unpack(source["segments"])
    members = {name: source[name] for name in ("kind", "description", "duration", "url") if name in source}
    members["segments"] = format_segments(source["text"], segments)
    if given := read_producer_chapters(source):
        members["chapters"] = format_chapters(given, segments)
    return members


def talk_mapping(shown_text: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping's fields of it; `shown_text` is how text is mapped that keyword search finds."""
    return {
        "kind": {"type": "keyword"},
        "description": shown_text,
        "segments": _UNINDEXED_OBJECT,
        "given": _UNINDEXED_OBJECT,
        "given_titles": shown_text,
        "talk_repairs": _UNINDEXED_OBJECT,
        "duration": {"type": "double"},
        "url": _SHOWN_ONLY,
    }


TOO_MANY_WINDOWS = "too_many_windows"
# Nested documents of one document: more than a text of 1 MiB can have of windows of ordinary size (3,654). OpenSearch
# takes 10,000, but those are a request of 58 MB; 4,096 are 24 MB.
MAX_NESTED_WINDOWS = 4096


@dataclass(frozen=True, slots=True)
class EncodedWindow:
    """A window of `joined_text` (character offsets, end exclusive) with its vector."""

    start: int
    end: int
    vector: SparseVector


@dataclass(frozen=True, slots=True)
class PackedWindow:
    """A window as it is stored, for a search that only scores it."""

    start: int
    end: int
    vector: PackedVector


def build_search_fields(windows: Sequence[EncodedWindow], spec: IndexSpec, source: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in which a document's vectors are searched, as the index declares; of talk, its windows' words too.

    `source`: the document as it is stored beside them.
    """
    fields: dict[str, Any] = {}
    if "document" in spec.scored_by:
        fields["sparse"] = document_vector(windows, spec.document_top_k).features()
    if "window" in spec.scored_by:
        fields["window_vectors"] = nested = [{"sparse": window.vector.features()} for window in windows]
        if spec.talk is not None:
            text = joined_text(source.get("title", ""), source["text"])
            for each, window in zip(nested, windows, strict=True):
                each["words"] = text[window.start : window.end]  # type: ignore[assignment]
    if spec.talk is not None and "chapters" in source:
        fields["chapters"] = build_chapter_fields(windows, spec, source)
    return fields


def build_chapter_fields(
    windows: Sequence[EncodedWindow], spec: IndexSpec, source: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the chapters of a document with the fields that are searched.

    `sparse` holds for each piece its largest weight in any window of the chapter; `words` holds title and text.
    """
    text = source["text"]
    ends = window_ends(windows, len(joined_text(source.get("title", ""), text)) - len(text))
    found = []
    for chapter in source["chapters"]:
        own = [windows[at].vector for at in chapter_windows(chapter, ends)]
        words = f"{chapter['title']}\n{text[chapter['start'] : chapter['end']]}"
        found.append({**chapter, "sparse": merge_max(own).top(spec.document_top_k).features(), "words": words})
    return found


def window_limit_refusal(count: int, spec: IndexSpec) -> tuple[str, str] | None:
    """Code and reason of a refusal when an index takes no document of so many windows; None when it does."""
    if "window" not in spec.scored_by or count <= MAX_NESTED_WINDOWS:
        return None
    return (
        TOO_MANY_WINDOWS,
        f"It has {count:,} windows, and an index that keeps the vector of each takes {MAX_NESTED_WINDOWS:,} of a document. "
        "Split it, or declare larger windows, or `windows` as merged (sparsewell reindex).",
    )


def document_vector(windows: Sequence[EncodedWindow], top_k: int) -> SparseVector:
    """The vector that is indexed: max over windows, the `top_k` heaviest pieces."""
    return merge_max(window.vector for window in windows).top(top_k)


def read_windows(source: Mapping[str, Any]) -> list[EncodedWindow]:
    """The windows of a stored document; empty until it is encoded."""
    return [
        EncodedWindow(window["start"], window["end"], SparseVector.unpack(window["vector"]))
        for window in source.get("windows", ())
    ]


def read_packed_windows(source: Mapping[str, Any]) -> list[PackedWindow]:
    """As `read_windows`, without unpacking them."""
    return [
        PackedWindow(window["start"], window["end"], PackedVector(window["vector"]))
        for window in source.get("windows", ())
    ]
