"""Stored document: its version and state; mapping and `_source` members of windows, chapters and talk.

The source stores the windows packed, with their vectors; the searched fields (`sparse`, `window_vectors`, `chapters`)
can be built again from them, so `_source` excludes these. Talk adds segments, chapters and the producer's members to
the source. Nothing here does I/O. See docs/decisions/0004 (packed vectors), 0171 (long documents), 0190 (transcripts)
and 0195 (chapters).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.documents.document import VERSION_STRIDE, joined_text
from services.encoders.vectors import PackedVector, SparseVector, merge_max
from services.index_spec import IndexSpec
from services.talk.chapters import format_chapters, format_segments
from services.talk.model import TALK_KIND, Segments, Talk, chapter_windows, read_producer_chapters, window_ends

TOO_MANY_WINDOWS = "too_many_windows"
# Nested documents of one document. A text of 1 MiB of prose has about 1,200 windows of 254 pieces; one of
# punctuation may have 5,490. OpenSearch allows 10,000, but they make a request of 58 MB; 4,096 make 24 MB.
MAX_NESTED_WINDOWS = 4096
# A retry takes one transition. Then each attempt takes three (enqueued, begun, failed), and death takes one.
RETRY_RESERVED_VERSIONS = 64
# A page of whole documents is in memory as JSON and as values, up to 4 MB for a text of 1 MiB with its windows. So 32
# of the largest take 128 MB, which a container of 384 MiB bears.
PAGE_BYTES = 4 * 1024**2
MAX_PAGE_DOCUMENTS = 32
_WINDOW_BYTES = 40
# The merged vector with pieces as names of features. Writers that have no vocabulary copy it.
PIECES_FIELD: Final = "pieces"
# The member with the windows of the earlier text of an updated document.
EARLIER_WINDOWS: Final = "earlier.vectors.windows"
_STORED_INTEGER: Final = {"type": "integer", "index": False, "doc_values": False}
_STORED_SECONDS: Final = {"type": "float", "index": False, "doc_values": False}
_KEYWORD_FIELD: Final = {"type": "keyword"}
_UNINDEXED_OBJECT = {"type": "object", "enabled": False}
_RETURNED_ONLY_KEYWORD = {"type": "keyword", "index": False, "doc_values": False}
# `_source` excludes these searched fields: they can be built again from the stored windows.
EXCLUDED_CHAPTER_FIELDS: Final = ("chapters.sparse", "chapters.sparse.*", "chapters.words")
# Members with the client's data in stored form. A reindex copies them.
RAW_TALK_MEMBERS = ("kind", "description", "segments", "given", "given_titles", "duration", "url", "talk_repairs")
_CHAPTER_MEMBERS = ("number", "title", "start", "end", "start_time", "end_time")


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """Document as OpenSearch stores it: `external` is its external version, `source` its `_source`.

    `physical`: the generation that it was read from; empty for search hits.
    """

    id: str
    external: int
    source: dict[str, Any]
    physical: str = ""

    @property
    def state(self) -> str:
        return str(self.source["state"])

    @property
    def attempts(self) -> int:
        """Number of attempts that workers recorded. The first attempt is not recorded."""
        return int(self.source.get("attempts", 0))

    @property
    def transitions(self) -> int:
        """Number of transitions since the client's write."""
        return self.external % VERSION_STRIDE

    @property
    def may_change(self) -> bool:
        """Tell whether a transition is left besides the last one, which is reserved for death."""
        return self.transitions < VERSION_STRIDE - 3

    @property
    def may_be_retried(self) -> bool:
        """Tell whether enough transitions are left for another round of attempts."""
        return self.transitions < VERSION_STRIDE - 3 - RETRY_RESERVED_VERSIONS


@dataclass(frozen=True, slots=True)
class EncodedWindow:
    """Window of `joined_text` (character offsets, end exclusive) with its vector."""

    start: int
    end: int
    vector: SparseVector


@dataclass(frozen=True, slots=True)
class PackedWindow:
    """Window with its packed vector, for a search that only scores it."""

    start: int
    end: int
    vector: PackedVector


@dataclass
class WholeDocumentPages:
    """The number of whole documents to read next, so that a page has about PAGE_BYTES.

    The sizes of documents are unknown before they are read, so they are estimated from the page before. The number at
    most doubles, from `size` up to MAX_PAGE_DOCUMENTS.
    """

    size: int = 1

    def take(self, ids: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """Return the ids of the next page, and the rest."""
        return ids[: self.size], ids[self.size :]

    def record(self, documents: Collection[StoredDocument]) -> int:
        """Record a page that was read, and return its bytes."""
        total = sum(stored_size(stored.source) for stored in documents)
        if documents:
            self.size = max(1, min(2 * self.size, MAX_PAGE_DOCUMENTS, PAGE_BYTES * len(documents) // (total + 1)))
        return total


def stored_size(source: Mapping[str, Any]) -> int:
    """Return about how many bytes a stored document has: its text, its windows and its dense vectors."""
    earlier = source.get("earlier", {}).get("vectors", {}).get("windows", ())
    windows = (*source.get("windows", ()), *earlier)
    vectors = sum(_WINDOW_BYTES + len(window["vector"]) for window in windows)
    return len(source.get("text", "")) + len(source.get("dense", "")) + vectors


def rebuild_search_fields(source: Mapping[str, Any], spec: IndexSpec) -> dict[str, Any]:
    """Return the search fields of a stored document from its packed windows."""
    return build_search_fields(read_windows(source), spec, source)


def build_search_fields(windows: Sequence[EncodedWindow], spec: IndexSpec, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields for sparse search, as the index declares them; for talk, also the words of its windows.

    `source`: the stored document without these fields.
    """
    fields = build_vector_fields(windows, spec)
    if "window" in spec.scored_by and spec.talk is not None:
        text = joined_text(source.get("title", ""), source["text"])
        for fields_of_window, window in zip(fields["window_vectors"], windows, strict=True):
            fields_of_window["words"] = text[window.start : window.end]
    if spec.talk is not None and "chapters" in source:
        fields["chapters"] = build_chapter_fields(windows, spec, source)
    return fields


def build_stale_fields(source: Mapping[str, Any], spec: IndexSpec) -> dict[str, Any]:
    """Return the fields for sparse search of a document that is not encoded yet, from its earlier vectors, if any.

    They are the vectors of the version before (`earlier.vectors`), so they have no words and no chapters.
    """
    vectors = source.get("earlier", {}).get("vectors")
    if vectors is None:
        return {}
    return build_vector_fields(read_windows(vectors), spec)


def build_vector_fields(windows: Sequence[EncodedWindow], spec: IndexSpec) -> dict[str, Any]:
    """Return the sparse vectors as the index declares them: merged, by window, or both."""
    fields: dict[str, Any] = {}
    if "document" in spec.scored_by:
        fields["sparse"] = document_vector(windows, spec.document_top_k).features()
    if "window" in spec.scored_by:
        fields["window_vectors"] = [{"sparse": window.vector.features()} for window in windows]
    return fields


def piece_features(
    windows: Sequence[EncodedWindow], spec: IndexSpec, token: Callable[[int], str] | None
) -> dict[str, dict[str, float]]:
    """Return the field `pieces`, if the index declares it: the document's vector with pieces as names.

    `token` returns the piece of a vocabulary id as the tokeniser writes it, which is the name that the plugin's
    tokenisers ask for. OpenSearch indexes a name with a dot, such as the piece ".". Raises ValueError without `token`
    for an index that declares the field.
    """
    if not spec.piece_features:
        return {}
    if token is None:
        raise ValueError("an index with `piece_features` needs the vocabulary of its encoder")
    vector = document_vector(windows, spec.document_top_k)
    names = map(token, vector.ids.tolist())
    return {PIECES_FIELD: dict(zip(names, vector.weights.tolist(), strict=True))}


def document_vector(windows: Sequence[EncodedWindow], top_k: int) -> SparseVector:
    """Return the indexed vector of a document: the maximum over its windows, with the `top_k` heaviest pieces."""
    return merge_max(window.vector for window in windows).top(top_k)


def build_chapter_fields(
    windows: Sequence[EncodedWindow], spec: IndexSpec, source: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the chapters of a document with their searched fields.

    `sparse` holds for each piece its largest weight in any window of the chapter; `words` holds title and text.
    """
    text = source["text"]
    ends = window_ends(windows, len(joined_text(source.get("title", ""), text)) - len(text))
    chapters = []
    for chapter in source["chapters"]:
        vectors = [windows[at].vector for at in chapter_windows(chapter, ends)]
        words = f"{chapter['title']}\n{text[chapter['start'] : chapter['end']]}"
        chapters.append({**chapter, "sparse": merge_max(vectors).top(spec.document_top_k).features(), "words": words})
    return chapters


def window_limit_refusal(count: int, spec: IndexSpec) -> tuple[str, str] | None:
    """Return the code and reason of a refusal if the index cannot store so many windows, else None."""
    if "window" not in spec.scored_by or count <= MAX_NESTED_WINDOWS:
        return None
    return (
        TOO_MANY_WINDOWS,
        f"The document has {count:,} windows. An index that stores a vector for each window allows "
        f"{MAX_NESTED_WINDOWS:,} per document. Split the document, declare larger windows, or declare `windows` as "
        "merged (sparsewell reindex).",
    )


def read_windows(source: Mapping[str, Any]) -> list[EncodedWindow]:
    """Return the windows of a stored document; none before it is encoded."""
    return [
        EncodedWindow(window["start"], window["end"], SparseVector.unpack(window["vector"]))
        for window in source.get("windows", ())
    ]


def with_searched_vectors(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stored document with the windows that find it: until it is encoded, those of its earlier text.

    The offsets of earlier windows are not those of the text.
    """
    vectors = source.get("earlier", {}).get("vectors")
    return source if vectors is None else {**source, "windows": vectors["windows"]}


def read_packed_windows(source: Mapping[str, Any]) -> list[PackedWindow]:
    """Return the windows as `read_windows` does, without unpacking their vectors."""
    return [
        PackedWindow(window["start"], window["end"], PackedVector(window["vector"]))
        for window in source.get("windows", ())
    ]


def build_talk_members(talk: Talk) -> dict[str, Any]:
    """Return the members of a talk's `_source`. Absent data has no member."""
    members: dict[str, Any] = {"kind": TALK_KIND, "segments": talk.segments.pack()}
    if talk.description:
        members["description"] = talk.description
    if talk.producer_chapters is not None:
        members["given"] = [chapter.as_json(i) for i, chapter in enumerate(talk.producer_chapters, 1)]
        # a title may use words that no speaker says: lexical search reads titles as it reads the description
        members["given_titles"] = [chapter.title for chapter in talk.producer_chapters]
    if talk.duration is not None:
        members["duration"] = talk.duration
    if talk.url:
        members["url"] = talk.url
    if talk.repairs:
        members["talk_repairs"] = [repair.as_json() for repair in talk.repairs]
    return members


def read_talk_members(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored talk's members in the client's format. `segments` replace the text."""
    segments = Segments.unpack(source["segments"])
    members = {name: source[name] for name in ("kind", "description", "duration", "url") if name in source}
    members["segments"] = format_segments(source["text"], segments)
    if producer_chapters := read_producer_chapters(source):
        members["chapters"] = format_chapters(producer_chapters, segments)
    return members


def read_segments(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the segments of a stored talk in the client's format."""
    return format_segments(source["text"], Segments.unpack(source["segments"]))


def read_chapters(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the chapters of a stored talk: made during encoding, or the producer's until then."""
    chapters = source.get("chapters", source.get("given", ()))
    return [{name: chapter[name] for name in _CHAPTER_MEMBERS if name in chapter} for chapter in chapters]


def talk_mapping(shown_text: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of talk fields. `shown_text` is the mapping of text that lexical search reads."""
    return {
        "kind": {"type": "keyword"},
        "description": shown_text,
        "segments": _UNINDEXED_OBJECT,
        "given": _UNINDEXED_OBJECT,
        "given_titles": shown_text,
        "talk_repairs": _UNINDEXED_OBJECT,
        "duration": {"type": "double"},
        "url": _RETURNED_ONLY_KEYWORD,
    }


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
