"""Query expansion: earlier turns of a conversation and feedback by documents move the query before it is searched."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from query_api.schemas.search_request import Context, Example, Feedback
from query_api.search.context import Hit, SearchContext, Source
from query_api.search.retrieval import read_sources, retrieve
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector
from services.errors import InvalidInput
from services.opensearch.stored_document import document_vector, read_packed_windows, read_windows
from services.query.expansion import (
    FEEDBACK_ORIGIN,
    ConversationMemory,
    QueryBlend,
    RocchioParameters,
    apply_rocchio,
    context_pieces,
    context_words,
    word_weights,
)

FedBack = dict[str, list[str]]


def with_conversation(context: SearchContext, given: Context) -> SearchContext:
    """Return the context with pieces and words of earlier turns. A query without words (`like`) takes all of them."""
    settings, table = context.settings, context.table
    memory = ConversationMemory(given.share, given.decay, given.rarity)
    turns = [table.encode(turn).by_id() for turn in given.turns]
    own = context.query.by_id() | dict(context.query.pruned)
    share = context_pieces(own, turns, table.heaviest, memory, settings.max_added_pieces)
    words = context_words(context.request.query, given.turns, word_weights(table, given.turns), memory)
    blend = context.blend.plus([share], settings.max_query_pieces)
    return replace(context.with_blend(blend), carried=words)


async def with_feedback(context: SearchContext) -> tuple[SearchContext, FedBack]:
    """Return the context with the query moved by feedback, and the `feedback` member of the response.

    Raises InvalidInput (`nothing_to_search_by`) when there are no words and no liked document has a vector.
    """
    request = context.request
    done: FedBack = {"documents": [], "liked": [], "unliked": [], "without_vector": [], "unknown": []}
    feedback = request.feedback or Feedback.model_validate({"documents": 0})
    if request.like or request.unlike:
        context = await _apply_named(context, feedback, done)
    if not request.query.strip() and not context.query.ids:
        raise InvalidInput(
            "nothing_to_search_by",
            "There are no words, and nothing that is liked has a vector to search by "
            f"(documents that wait for theirs: {len(done['without_vector'])}, not there: {len(done['unknown'])}).",
        )
    if feedback.documents:
        context = await _apply_best(context, feedback, done)
    return context, done


async def _apply_named(context: SearchContext, feedback: Feedback, done: FedBack) -> SearchContext:
    """Move the query by the documents that the user named. The whole document is meant: its whole vector counts."""
    request = context.request
    liked, unliked = _document_ids(request.like), _document_ids(request.unlike)
    physical = context.generation.physical
    sources = await _read_vectors(context, [Hit(one, physical, 0.0, {}) for one in (*liked, *unliked)])
    top_k = context.generation.spec.document_top_k
    vectors: dict[str, list[SparseVector]] = {}
    for side, ids, given in (("liked", liked, request.like), ("unliked", unliked, request.unlike)):
        done[side] = _with_vectors(ids, sources, done)
        vectors[side] = [document_vector(read_windows(sources[one]), top_k) for one in done[side]]
        vectors[side] += [_as_document(context.table, one.text) for one in given if isinstance(one, Example)]
    blend = _apply_feedback(context, feedback, liked=vectors["liked"], unliked=vectors["unliked"])
    context.watch.lap("encode")
    return replace(context.with_blend(blend), left_out=unliked if request.include_liked else [*liked, *unliked])


async def _apply_best(context: SearchContext, feedback: Feedback, done: FedBack) -> SearchContext:
    """Move the query by the best documents of a first round.

    Of each document the window counts that answers the query best: the rest of a long document is about other things.
    """
    request = context.request.model_copy(update=_first_round_members(context, feedback))
    first = replace(context, request=request, page=None, selection=context.selection.only_filtered())
    sources = await _read_vectors(context, (await retrieve([first])).hits)
    done["documents"] = _with_vectors(list(sources), sources, done)
    by_id = context.query.by_id()
    vectors = []
    for one in done["documents"]:
        best = max(read_packed_windows(sources[one]), key=lambda window: window.vector.dot(by_id))
        vectors.append(SparseVector.unpack(best.vector.text))
    blend = _apply_feedback(context, feedback, liked=vectors, origin=FEEDBACK_ORIGIN)
    context.watch.lap("encode")
    return context.with_blend(blend)


def _apply_feedback(context: SearchContext, feedback: Feedback, **given: Any) -> QueryBlend:
    rocchio = RocchioParameters(feedback.alpha, feedback.beta, feedback.gamma, feedback.pieces)
    return apply_rocchio(context.blend, rocchio, context.table.weight, context.settings.max_query_pieces, **given)


async def _read_vectors(context: SearchContext, hits: Sequence[Hit]) -> dict[str, Source]:
    """Read documents with their vectors, if they have any, as searches see them; by id."""
    found = await read_sources(context, hits, ("state", "windows"))
    return {one.id: one.source for one in found if one.source is not None}


def _first_round_members(context: SearchContext, feedback: Feedback) -> dict[str, Any]:
    """Return the members in which the first round's request differs. Without words there is one list only."""
    mode = feedback.choose_by if context.request.query.strip() else "sparse"
    return {
        "mode": mode,
        "size": feedback.documents,
        "fields": [],
        "passage": False,
        "explain": False,
        "highlight": False,
        "facets": None,
        "sort": [],
    }


def _document_ids(given: Sequence[str | Example]) -> list[str]:
    return list(dict.fromkeys(one for one in given if isinstance(one, str)))


def _with_vectors(ids: Sequence[str], sources: Mapping[str, Source], done: FedBack) -> list[str]:
    """Return the ids of documents that have vectors; record the others in `done`."""
    usable = []
    for one in ids:
        if one not in sources:
            done["unknown"].append(one)
        elif not sources[one].get("windows"):
            done["without_vector"].append(one)
        else:
            usable.append(one)
    return usable


def _as_document(table: QueryTable, text: str) -> SparseVector:
    """Return a text as the vector of a document that has each of its pieces once."""
    ids = sorted(table.encode(text).ids)
    return SparseVector.of(ids, np.ones(len(ids)))
