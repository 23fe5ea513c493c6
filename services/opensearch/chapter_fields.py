"""How the chapters of talk are searched: their fields in the mapping, and what is written there. Pure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from services.documents import joined_text
from services.index_spec import IndexSpec
from services.talk.chaptering import ends_in_text, windows_within
from services.vectors import merge_max

if TYPE_CHECKING:
    from services.opensearch.stored_windows import EncodedWindow

_SHOWN: Final = {"type": "integer", "index": False, "doc_values": False}
_SECONDS: Final = {"type": "float", "index": False, "doc_values": False}
_KEYWORD: Final = {"type": "keyword"}
# Searched, and made again from what is stored: not kept in `_source`.
EXCLUDED: Final = ("chapters.sparse", "chapters.sparse.*", "chapters.words")


def chapter_properties(words: Mapping[str, Any]) -> dict[str, Any]:
    """Of the mapping of an index that declares talk; `words` is the type of its keyword fields."""
    return {
        "chapters": {
            "type": "nested",
            "properties": {
                "number": _SHOWN,
                "title": {"type": "text", "index": False},
                "start": _SHOWN,
                "end": _SHOWN,
                "start_time": _SECONDS,
                "end_time": _SECONDS,
                "sparse": {"type": "rank_features"},
                "words": words,
            },
        },
        "chapter_titles": words,
        "chaptering": {"dynamic": False, "properties": {"engine": _KEYWORD, "fingerprint": _KEYWORD}},
    }


def searched_chapters(
    windows: Sequence["EncodedWindow"], spec: IndexSpec, source: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The chapters of a document with what finds them: for each piece the largest weight of any of their windows, and
    their words, those of the title among them.
    """
    text = source["text"]
    ends = ends_in_text(windows, len(joined_text(source.get("title", ""), text)) - len(text))
    found = []
    for chapter in source["chapters"]:
        own = [windows[at].vector for at in windows_within(chapter, ends)]
        words = f"{chapter['title']}\n{text[chapter['start'] : chapter['end']]}"
        found.append({**chapter, "sparse": merge_max(own).top(spec.document_top_k).features(), "words": words})
    return found
