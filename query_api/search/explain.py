"""Why a document matched: contributions that add up to the score of each list."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.opensearch.journal import EncodedWindow, document_vector
from services.query_table import QueryTable, QueryVector

# Lucene's explanation of one term of the keyword query, with the term's share of the score as its value.
_TERM = re.compile(r"weight\(lexical:(?P<term>.*) in \d+\)")


def query_pieces(table: QueryTable, query: QueryVector) -> list[dict[str, Any]]:
    """The pieces that the query was turned into, heaviest first, with those that were left out again."""
    kept = [(i, weight, False) for i, weight in zip(query.ids, query.weights, strict=True)]
    dropped = [(i, weight, True) for i, weight in query.pruned]
    return [
        {"piece": table.piece(i), "id": i, "weight": weight, "pruned": pruned}
        for i, weight, pruned in sorted(kept + dropped, key=lambda one: -one[1])
    ]


def sparse_why(
    table: QueryTable, query: QueryVector, windows: Sequence[EncodedWindow], top_k: int, text: str
) -> list[dict[str, Any]]:
    """Query weight x document weight for each piece that both have, largest first.

    `expansion` marks pieces that the encoder added: they do not occur in the document's own text.
    """
    weights = query.by_id()
    vector = document_vector(windows, top_k)
    own = set(table.ids(text))
    found = [
        {
            "list": "sparse",
            "piece": table.piece(i),
            "id": i,
            "query_weight": weights[i],
            "document_weight": weight,
            "contribution": weights[i] * weight,
            "expansion": i not in own,
        }
        for i, weight in zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)
        if i in weights
    ]
    return _largest_first(found)


def lexical_why(explanation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The share of each word in a BM25 score, read from the engine's own explanation."""
    found = [
        {"list": "lexical", "piece": term, "contribution": value, "expansion": False}
        for term, value in _terms(explanation or {})
    ]
    return _largest_first(found)


def _terms(node: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    match = _TERM.match(str(node.get("description", "")))
    if match:
        yield match["term"], float(node["value"])
        return
    for part in node.get("details", ()):
        yield from _terms(part)


def _largest_first(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda entry: -float(entry["contribution"]))
