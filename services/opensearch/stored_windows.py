"""Windows of a stored document: the fields that are searched of them, and how they are read back. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.documents import joined_text
from services.index_spec import IndexSpec
from services.talk.chaptering import ends_in_text, windows_within
from services.vectors import PackedVector, SparseVector, merge_max

TOO_MANY_WINDOWS = "too_many_windows"
# Nested documents of one document: more than a text of 1 MiB can have of windows of ordinary size (3,654). OpenSearch
# takes 10,000, but those are a request of 58 MB; 4,096 are 24 MB.
MAX_NESTED = 4096


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


def searched(windows: Sequence[EncodedWindow], spec: IndexSpec, source: Mapping[str, Any]) -> dict[str, Any]:
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
        fields["chapters"] = searched_chapters(windows, spec, source)
    return fields


def searched_chapters(
    windows: Sequence[EncodedWindow], spec: IndexSpec, source: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the chapters of a document with the fields that are searched.

    `sparse` holds for each piece its largest weight in any window of the chapter; `words` holds title and text.
    """
    text = source["text"]
    ends = ends_in_text(windows, len(joined_text(source.get("title", ""), text)) - len(text))
    found = []
    for chapter in source["chapters"]:
        own = [windows[at].vector for at in windows_within(chapter, ends)]
        words = f"{chapter['title']}\n{text[chapter['start'] : chapter['end']]}"
        found.append({**chapter, "sparse": merge_max(own).top(spec.document_top_k).features(), "words": words})
    return found


def too_many_windows(count: int, spec: IndexSpec) -> tuple[str, str] | None:
    """Code and reason of a refusal when an index takes no document of so many windows; None when it does."""
    if "window" not in spec.scored_by or count <= MAX_NESTED:
        return None
    return (
        TOO_MANY_WINDOWS,
        f"It has {count:,} windows, and an index that keeps the vector of each takes {MAX_NESTED:,} of a document. "
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
