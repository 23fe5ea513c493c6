"""What is shown of each document that was found."""

from typing import Any

from query_api.search.context import Hit, SearchContext, Source
from query_api.search.explain import common_pieces, lexical_why, query_pieces, sparse_why, sum_why
from query_api.search.places import own_text, place
from query_api.search.text_fragment import text_fragment


def shaped(context: SearchContext, one: Hit, source: Source) -> dict[str, Any]:
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
        hit |= place(context, one, source)
        if request.wants_fragments:
            hit["passage"]["fragment"] = text_fragment(hit["passage"]["text"])
    if request.explain:
        hit["why"] = _why(context, one, source, own_text(context, one, source))
        if one.fusion is not None:
            hit["fusion"] = sum_why(one.fusion)
        if one.reranking is not None:
            hit["reranking"] = sum_why(one.reranking)
    return hit


def pieces_of(context: SearchContext) -> list[dict[str, Any]]:
    """The pieces that the query was turned into, for the answer."""
    pieces = query_pieces(context.table, context.blend)
    return pieces if context.curated is None else context.curated.marked_pieces(pieces)


def _why(context: SearchContext, one: Hit, source: Source, text: str) -> list[dict[str, Any]]:
    """Only of lists that named the document: another one added nothing to its score, whatever its vector holds."""
    by_list = []
    if "sparse" in one.scores:
        pieces = common_pieces(context, one, source)
        by_list.append(sparse_why(context.table, pieces, context.blend.origins, text))
    if "lexical" in one.scores:
        by_list.append(lexical_why(one.shares, context.request.unit))
    rules = context.curated
    if rules is not None:
        # (the filter of a boost may name what a caller with a filter of its own is not told of)
        named = context.reveals_others
        by_list = [rules.marked(why) + rules.boost_why(why, one.boosts, named=named) for why in by_list]
    return [entry for why in by_list for entry in why]
