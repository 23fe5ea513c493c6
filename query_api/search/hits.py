"""What is shown of each document that was found.

Why a document matched: contributions that add up to the score of each list.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from query_api.schemas.search_request import HitUnit
from query_api.search.context import Hit, SearchContext, Source
from query_api.search.passages import encoded_text, locate, part_windows, text_fragment
from services.encoders.query_table import QueryTable
from services.encoders.vectors import EMPTY_VECTOR
from services.opensearch.stored_document import document_vector, read_windows
from services.query.expansion import QUERY_ORIGIN, QueryBlend

# Lucene's explanation of one term of the keyword query, with the term's share of the score as its value.
_TERM = re.compile(
    r"weight\((?P<field>lexical|title_words|chapter_titles|chapters\.words|window_vectors\.words):(?P<term>.*) in \d+\)"
)
# Where the share of a word comes from that counts beside being one of the text.
_ORIGINS = {
    "title_words": "title",
    "chapter_titles": "chapter_title",
    "chapters.words": "chapter",
    "window_vectors.words": "passage",
}


def query_pieces(table: QueryTable, query: QueryBlend) -> list[dict[str, Any]]:
    """The pieces that the query was turned into, heaviest first, with what each origin gave to the weight.

    Those that were left out again are among them.
    """
    vector = query.vector
    kept = [(i, weight, False) for i, weight in zip(vector.ids, vector.weights, strict=True)]
    # (what was left out of the words may have come back from elsewhere)
    dropped = [(i, weight, True) for i, weight in vector.pruned if i not in query.origins]
    return [
        {
            "piece": table.piece(i),
            "id": i,
            "weight": weight,
            "pruned": pruned,
            "origins": {QUERY_ORIGIN: weight} if pruned else dict(query.origins[i]),
        }
        for i, weight, pruned in sorted(kept + dropped, key=lambda one: -one[1])
    ]


def matched_pieces(context: SearchContext, one: Hit, source: Source) -> dict[int, tuple[float, float]]:
    """Query weight and document weight of each piece that the query and what was scored have, by vocabulary id.

    Scored was the merged vector of the document or of a chapter, or that of a window: the one that was found, or the
    best, the first of equals, which is the passage too.
    """
    weights, unit, windows = context.query.by_id(), context.request.unit, read_windows(source)
    own = windows if one.number is None else [windows[at] for at in part_windows(unit, one.number, source, windows)]
    if unit == "chapter" or (unit == "document" and context.score_by == "document"):
        vector = document_vector(own, context.generation.spec.document_top_k)
    else:
        vector = max((window.vector for window in own), key=lambda each: each.dot(weights), default=EMPTY_VECTOR)
    pairs = zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)
    return {i: (weights[i], weight) for i, weight in pairs if i in weights}


def sparse_why(
    table: QueryTable, pieces: Mapping[int, tuple[float, float]], origins: Mapping[int, Mapping[str, float]], text: str
) -> list[dict[str, Any]]:
    """Query weight x document weight for each of the `common_pieces`, largest first.

    `origins` says what each origin of the query's weight contributed. `expansion` marks pieces that the encoder added:
    they do not occur in the document's own text.
    """
    own = table.occurring(pieces, text)
    found = [
        {
            "list": "sparse",
            "piece": table.piece(i),
            "id": i,
            "query_weight": query_weight,
            "document_weight": document_weight,
            "contribution": query_weight * document_weight,
            "expansion": i not in own,
            "origins": {origin: given * document_weight for origin, given in origins[i].items()},
        }
        for i, (query_weight, document_weight) in pieces.items()
    ]
    return _largest_first(found)


def keyword_shares(explanation: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """What each of the analyser's terms, by its field, added to a BM25 score, out of the engine's own explanation."""
    shares: dict[tuple[str, str], float] = {}
    for key, value in _term_shares(explanation):
        shares[key] = shares.get(key, 0.0) + value
    return shares


def lexical_why(shares: Mapping[tuple[str, str], float], unit: HitUnit = "document") -> list[dict[str, Any]]:
    """The share of each word in a BM25 score; what words of a title, of the best chapter and of the best passage add to
    that of a document apart.
    """
    found = []
    for (field, term), value in shares.items():
        entry = {"list": "lexical", "piece": term, "contribution": value, "expansion": False}
        beside = unit == "document" and field in _ORIGINS
        found.append(entry | {"origins": {_ORIGINS[field]: value}} if beside else entry)
    return _largest_first(found)


def word_shares(shares: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """What each word added to a BM25 score, in all fields together, with the share of a phrase divided among its
    words.
    """
    words: dict[str, float] = {}
    for (_, term), share in shares.items():
        phrase = term[1:-1].split() if term.startswith('"') else [term]
        for word in phrase:
            words[word] = words.get(word, 0.0) + share / len(phrase)
    return words


def score_parts(parts: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """By what was added: its share of the weights, the document's scaled score, and their product, which add up."""
    return {
        name: {"share": share, "scaled": scaled, "contribution": share * scaled}
        for name, (share, scaled) in parts.items()
    }


def _term_shares(node: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str], float]]:
    match = _TERM.match(str(node.get("description", "")))
    if match:
        yield (match["field"], match["term"]), float(node["value"])
        return
    parts = node.get("details", ())
    if parts and str(node.get("description", "")).startswith("max of:"):
        # Of alternatives only the best one counts (Lucene's DisjunctionMaxQuery).
        parts = [max(parts, key=lambda part: float(part["value"]))]
    for part in parts:
        yield from _term_shares(part)


def _largest_first(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda entry: -float(entry["contribution"]))


def shape_hit(context: SearchContext, one: Hit, source: Source) -> dict[str, Any]:
    """A hit of the answer."""
    request = context.request
    score = one.score if one.scores or one.pinned else None
    hit: dict[str, Any] = {"id": one.id, "score": score, "scores": one.scores, "state": source["state"]}
    if one.pinned:
        hit["pinned"] = True
    for name in request.fields:
        # of a single metadata field OpenSearch gives the object around it, with nothing else in it
        shown = "metadata" if name.startswith("metadata.") else name
        if shown in source:
            hit[shown] = source[shown]
    if (request.passage and not request.browses) or one.number is not None:
        hit |= locate(context, one, source)
        if request.wants_fragments:
            hit["passage"]["fragment"] = text_fragment(hit["passage"]["text"])
    if request.explain:
        hit["why"] = _why(context, one, source, encoded_text(context, one, source))
        if one.fusion is not None:
            hit["fusion"] = score_parts(one.fusion)
        if one.reranking is not None:
            hit["reranking"] = score_parts(one.reranking)
    return hit


def shape_query_pieces(context: SearchContext) -> list[dict[str, Any]]:
    """The pieces that the query was turned into, for the answer."""
    pieces = query_pieces(context.table, context.blend)
    return pieces if context.curated is None else context.curated.marked_pieces(pieces)


def _why(context: SearchContext, one: Hit, source: Source, text: str) -> list[dict[str, Any]]:
    """Only of lists that named the document: another one added nothing to its score, whatever its vector holds."""
    by_list = []
    if "sparse" in one.scores:
        pieces = matched_pieces(context, one, source)
        by_list.append(sparse_why(context.table, pieces, context.blend.origins, text))
    if "lexical" in one.scores:
        by_list.append(lexical_why(one.shares, context.request.unit))
    rules = context.curated
    if rules is not None:
        # (the filter of a boost may name what a caller with a filter of its own is not told of)
        named = context.reveals_others
        by_list = [rules.marked(why) + rules.boost_why(why, one.boosts, named=named) for why in by_list]
    return [entry for why in by_list for entry in why]
