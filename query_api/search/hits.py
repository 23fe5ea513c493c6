"""What is shown of each document that was found."""

from typing import Any

from query_api.search.asked import Asked, Found, Source
from query_api.search.explain import common_pieces, lexical_why, query_pieces, sparse_why, sum_why
from query_api.search.places import own_text, place
from query_api.search.text_fragment import text_fragment


def shaped(asked: Asked, one: Found, source: Source) -> dict[str, Any]:
    """A hit of the answer."""
    request = asked.request
    score = one.score if one.scores or one.pinned else None
    hit: dict[str, Any] = {"id": one.id, "score": score, "scores": one.scores, "state": source["state"]}
    if one.pinned:
        hit["pinned"] = True
    for name in request.fields:
        # of a single metadata field OpenSearch gives the object around it, with nothing else in it
        shown = "metadata" if name.startswith("metadata.") else name
        if shown in source:
            hit[shown] = source[shown]
    if (request.passage and not request.browses) or one.part is not None:
        hit |= place(asked, one, source)
        if request.wants_fragments:
            hit["passage"]["fragment"] = text_fragment(hit["passage"]["text"])
    if request.explain:
        hit["why"] = _why(asked, one, source, own_text(asked, one, source))
        if one.fusion is not None:
            hit["fusion"] = sum_why(one.fusion)
        if one.reranking is not None:
            hit["reranking"] = sum_why(one.reranking)
    return hit


def pieces_of(asked: Asked) -> list[dict[str, Any]]:
    """The pieces that the query was turned into, for the answer."""
    pieces = query_pieces(asked.table, asked.blend)
    return pieces if asked.curated is None else asked.curated.marked_pieces(pieces)


def _why(asked: Asked, one: Found, source: Source, text: str) -> list[dict[str, Any]]:
    """Only of lists that named the document: another one added nothing to its score, whatever its vector holds."""
    by_list = []
    if "sparse" in one.scores:
        pieces = common_pieces(asked, one, source)
        by_list.append(sparse_why(asked.table, pieces, asked.blend.origins, text))
    if "lexical" in one.scores:
        by_list.append(lexical_why(one.shares, asked.request.unit))
    rules = asked.curated
    if rules is not None:
        # (the filter of a boost may name what a caller with a filter of its own is not told of)
        named = asked.parts.who.filter is None
        by_list = [rules.marked(why) + rules.boost_why(why, one.boosts, named=named) for why in by_list]
    return [entry for why in by_list for entry in why]
