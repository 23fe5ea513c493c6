"""The hits of a response and their explanation.

`shape_hit` builds a hit with its fields, passage and explanation. The contributions of an explanation add up to the
score of each list: products of weights for the sparse list, the shares in Lucene's explanation for the lexical list. Of
alternatives only the best counts, as in Lucene's DisjunctionMaxQuery.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from query_api.schemas.search_request import HitUnit
from query_api.search.context import Hit, SearchContext, Source
from query_api.search.passages import encoded_text, locate, nested_windows, text_fragment
from services.encoders.query_table import QueryTable
from services.encoders.vectors import EMPTY_VECTOR
from services.opensearch.stored_document import document_vector, read_windows, with_searched_vectors
from services.query.expansion import QUERY_ORIGIN, QueryBlend
from services.query.suggest import fold_text

# The line of one term in Lucene's explanation; its value is the term's share of the score. A word with accents has two
# terms, its own and its folded form.
_TERM = re.compile(
    r"weight\((?P<forms>Synonym\()?(?P<field>lexical|title_words|chapter_titles|chapters\.words|window_vectors\.words):"
    r"(?P<term>.*) in \d+\)"
)
# Two forms at one place of a phrase.
_PHRASE_FORMS = re.compile(r"\(([^()]+)\)")
# The origin of a word's share by field, other than the document's own text.
_ORIGINS = {
    "title_words": "title",
    "chapter_titles": "chapter_title",
    "chapters.words": "chapter",
    "window_vectors.words": "passage",
}


def shape_hit(context: SearchContext, hit: Hit, source: Source) -> dict[str, Any]:
    """Shape a hit of the response."""
    request = context.request
    score = hit.score if hit.scores or hit.pinned else None
    shaped: dict[str, Any] = {"id": hit.id, "score": score, "scores": hit.scores, "state": source["state"]}
    if hit.pinned:
        shaped["pinned"] = True
    for name in request.fields:
        # For a single metadata field OpenSearch returns `metadata` with that field alone.
        shown = "metadata" if name.startswith("metadata.") else name
        if shown in source:
            shaped[shown] = source[shown]
    if (request.passage and not request.browses) or hit.number is not None:
        shaped |= locate(context, hit, source)
        if request.has_text_fragments:
            shaped["passage"]["fragment"] = text_fragment(shaped["passage"]["text"])
    if request.explain:
        shaped["why"] = _why(context, hit, source, encoded_text(context, hit, source))
        if hit.fusion is not None:
            shaped["fusion"] = score_parts(hit.fusion)
        if hit.reranking is not None:
            shaped["reranking"] = score_parts(hit.reranking)
    return shaped


def _why(context: SearchContext, hit: Hit, source: Source, text: str) -> list[dict[str, Any]]:
    """Explain the lists that named the document. Other lists added nothing to the score."""
    by_list = []
    if "sparse" in hit.scores:
        pieces = matched_pieces(context, hit, with_searched_vectors(source))
        by_list.append(sparse_why(context.table, pieces, context.blend.origins, text))
    if "lexical" in hit.scores:
        by_list.append(lexical_why(hit.shares, context.request.unit))
    rules = context.curated
    if rules is not None:
        # The filter of a boost may name documents that document-level security hides from the caller.
        named = context.is_unrestricted
        by_list = [rules.mark_explanation(why) + rules.explain_boosts(why, hit.boosts, named=named) for why in by_list]
    return [entry for why in by_list for entry in why]


def sparse_why(
    table: QueryTable, pieces: Mapping[int, tuple[float, float]], origins: Mapping[int, Mapping[str, float]], text: str
) -> list[dict[str, Any]]:
    """Return query weight x document weight for each of the `matched_pieces`, largest first.

    `origins`: the contribution of each origin to the query's weight. `expansion` marks pieces that the encoder added:
    they do not occur in the document's own text.
    """
    occurring = table.occurring(pieces, text)
    entries = [
        {
            "list": "sparse",
            "piece": table.piece(i),
            "id": i,
            "query_weight": query_weight,
            "document_weight": document_weight,
            "contribution": query_weight * document_weight,
            "expansion": i not in occurring,
            "origins": {origin: query_share * document_weight for origin, query_share in origins[i].items()},
        }
        for i, (query_weight, document_weight) in pieces.items()
    ]
    return _largest_first(entries)


def matched_pieces(context: SearchContext, hit: Hit, source: Source) -> dict[int, tuple[float, float]]:
    """Return query weight and document weight of each piece that query and scored vector share, by vocabulary id.

    The scored vector is the merged vector of the document or chapter, or the vector of a window: of the passage that
    was found, or of the best window (the first of equals), which is the passage shown.
    """
    weights, unit, windows = context.query.by_id(), context.request.unit, read_windows(source)
    scored_windows = (
        windows if hit.number is None else [windows[n] for n in nested_windows(unit, hit.number, source, windows)]
    )
    if unit == "chapter" or (unit == "document" and context.score_by == "document"):
        vector = document_vector(scored_windows, context.generation.spec.document_top_k)
    else:
        vector = max(
            (window.vector for window in scored_windows), key=lambda each: each.dot(weights), default=EMPTY_VECTOR
        )
    pairs = zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)
    return {i: (weights[i], weight) for i, weight in pairs if i in weights}


def lexical_why(shares: Mapping[tuple[str, str], float], unit: HitUnit = "document") -> list[dict[str, Any]]:
    """Return the contribution of each word to a BM25 score, largest first.

    For a document, words of the title, of the best chapter and of the best passage are entries of their own.
    """
    entries = []
    for (field, term), value in shares.items():
        entry = {"list": "lexical", "piece": term, "contribution": value, "expansion": False}
        has_origin = unit == "document" and field in _ORIGINS
        entries.append(entry | {"origins": {_ORIGINS[field]: value}} if has_origin else entry)
    return _largest_first(entries)


def lexical_shares(explanation: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Return the contribution of each term to a BM25 score, by field and term, from OpenSearch's explanation."""
    shares: dict[tuple[str, str], float] = {}
    for key, value in _term_shares(explanation):
        shares[key] = shares.get(key, 0.0) + value
    return shares


def word_shares(shares: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return the contribution of each word to a BM25 score over all fields. Words of a phrase have equal shares."""
    words: dict[str, float] = {}
    for (_, term), share in shares.items():
        phrase = term[1:-1].split() if term.startswith('"') else [term]
        for word in phrase:
            words[word] = words.get(word, 0.0) + share / len(phrase)
    return words


def _term_shares(node: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str], float]]:
    match = _TERM.match(str(node.get("description", "")))
    if match:
        term = match["term"]
        if match["forms"]:
            term = _common_form(term.removesuffix(")").split(f" {match['field']}:"))
        elif term.startswith('"'):
            term = _PHRASE_FORMS.sub(lambda forms: _common_form(forms[1].split()), term)
        yield (match["field"], term), float(node["value"])
        return
    parts = node.get("details", ())
    if parts and str(node.get("description", "")).startswith("max of:"):
        # Only the best alternative counts (Lucene's DisjunctionMaxQuery).
        parts = [max(parts, key=lambda part: float(part["value"]))]
    for part in parts:
        yield from _term_shares(part)


def _common_form(forms: Sequence[str]) -> str:
    """Return the folded one of the two forms of a word: the word has it in every spelling.

    A stemmer may remove the accents of both. The form that it shortened less is then the folded one, because it
    recognises the ends of words by their accents.
    """
    return max(forms, key=lambda form: (fold_text(form) == form, len(form)))


def _largest_first(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: -float(entry["contribution"]))


def score_parts(parts: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Return share, scaled score and contribution by list or model; the contributions add up to the score."""
    return {
        name: {"share": share, "scaled": scaled, "contribution": share * scaled}
        for name, (share, scaled) in parts.items()
    }


def shape_query_pieces(context: SearchContext) -> list[dict[str, Any]]:
    """Return the pieces of the query for the response; pruned pieces show the weights that curation rules added."""
    pieces = query_pieces(context.table, context.blend)
    return pieces if context.curated is None else context.curated.mark_query_pieces(pieces)


def query_pieces(table: QueryTable, query: QueryBlend) -> list[dict[str, Any]]:
    """Return the pieces of the query, heaviest first, with the weight that each origin added.

    Pruned pieces are included. In an index with adapted weights each piece has the encoder's weight and its factor.
    """
    vector = query.vector
    kept = [(i, weight, False) for i, weight in zip(vector.ids, vector.weights, strict=True)]
    # A piece pruned from the words may come back by expansion; it is listed once.
    dropped = [(i, weight, True) for i, weight in vector.pruned if i not in query.origins]
    return [
        {
            "piece": table.piece(i),
            "id": i,
            "weight": weight,
            "pruned": pruned,
            "origins": {QUERY_ORIGIN: weight} if pruned else dict(query.origins[i]),
            **_adaptation(table, i),
        }
        for i, weight, pruned in sorted(kept + dropped, key=lambda piece: -piece[1])
    ]


def _adaptation(table: QueryTable, piece_id: int) -> dict[str, float]:
    """Return the members that explain an adapted weight; none where the table is the encoder's own."""
    own = table.own_weight(piece_id)
    return {} if not own else {"encoder_weight": own, "factor": table.weight(piece_id) / own}
