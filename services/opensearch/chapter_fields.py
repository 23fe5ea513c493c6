"""Mapping fields of a talk's chapters. Pure."""

from collections.abc import Mapping
from typing import Any, Final

_SHOWN: Final = {"type": "integer", "index": False, "doc_values": False}
_SECONDS: Final = {"type": "float", "index": False, "doc_values": False}
_KEYWORD: Final = {"type": "keyword"}
# These fields are searched and can be made again from the stored windows, so `_source` leaves them out.
EXCLUDED: Final = ("chapters.sparse", "chapters.sparse.*", "chapters.words")


def chapter_properties(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of chapters for an index that declares talk. `words` is the type of its lexical fields."""
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
