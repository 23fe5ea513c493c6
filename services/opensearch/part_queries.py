"""Searches for parts of documents, which are nested: chapters of talk, and windows."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal

from services.opensearch.filter_clauses import Clause
from services.opensearch.queries import KeywordField, pieces_query
from services.query_table import QueryVector

Part = Literal["chapter", "passage"]
_PATHS: Final[Mapping[Part, str]] = {"chapter": "chapters", "passage": "window_vectors"}
_WORDS: Final[Mapping[Part, KeywordField]] = {"chapter": "chapters.words", "passage": "window_vectors.words"}


def words_field(part: Part) -> KeywordField:
    """Where keyword search finds the words of such parts."""
    return _WORDS[part]


def sparse_parts(query: QueryVector, part: Part) -> Clause:
    """The sum over the pieces of a query, of each part by itself."""
    return pieces_query(query, f"{_PATHS[part]}.sparse")


def by_best_part(query: Clause, part: Part, most: int, *, explained: bool = False) -> Clause:
    """Documents by the score of their best part, each with its best `most` parts.

    The best n parts of all are among those of the n documents with the best ones.
    """
    inner: dict[str, Any] = {"size": most, "_source": False}
    if explained:
        inner["explain"] = True
    return {"nested": {"path": _PATHS[part], "score_mode": "max", "query": query, "inner_hits": inner}}


def best_part(query: Clause, part: Part, factor: float) -> Clause:
    """So many times the score of a document's best part."""
    return {"nested": {"path": _PATHS[part], "score_mode": "max", "query": query, "boost": factor}}


def read_parts(hit: Mapping[str, Any], part: Part) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The best parts of a document that was found: their numbers, counted from 0, and what is said of each."""
    found: Collection[Mapping[str, Any]] = hit["inner_hits"][_PATHS[part]]["hits"]["hits"]
    for one in found:
        yield one["_nested"]["offset"], one
