"""Query expansion: earlier turns of a conversation and feedback from documents move the query vector.

Feedback is Rocchio's (`services.query.expansion`): the best documents of a first round, or the documents and texts that
the user names in `like` and `unlike`. Both act before the lists are searched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from query_api.ingest.item_blocks import LoopTurns
from query_api.schemas.refinement import Conversation, Example, Feedback
from query_api.search.context import Hit, SearchContext, Source
from query_api.search.retrieval import read_sources, retrieve
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector
from services.errors import InvalidInput
from services.opensearch.analysis import is_stop_word
from services.opensearch.stored_document import (
    EARLIER_WINDOWS,
    document_vector,
    read_packed_windows,
    read_windows,
    stored_size,
    with_searched_vectors,
)
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

FeedbackReport = dict[str, list[str]]


def with_conversation(context: SearchContext, conversation: Conversation) -> SearchContext:
    """Return the context with pieces and words of earlier turns. A query without words (`like`) takes all of them."""
    settings, table = context.settings, context.table
    memory = ConversationMemory(conversation.share, conversation.decay, conversation.rarity)
    turns = [table.encode(turn).by_id() for turn in conversation.turns]
    query = context.query.by_id() | dict(context.query.pruned)
    share = context_pieces(query, turns, table.heaviest, memory, settings.max_added_pieces)
    words = context_words(context.request.query, conversation.turns, word_weights(table, conversation.turns), memory)
    if context.generation.spec.language == "english":
        words = {word: boost for word, boost in words.items() if not is_stop_word(word)}
    blend = context.blend.plus([share], settings.max_query_pieces)
    return replace(context.with_blend(blend), context_words=words)


async def with_feedback(context: SearchContext) -> tuple[SearchContext, FeedbackReport]:
    """Return the context with the query moved by feedback, and the `feedback` member of the response.

    Raises InvalidInput (`nothing_to_search_by`) when there are no words and no liked document has a vector.
    """
    request = context.request
    report: FeedbackReport = {"documents": [], "liked": [], "unliked": [], "without_vector": [], "unknown": []}
    feedback = request.feedback or Feedback.model_validate({"documents": 0})
    if request.like or request.unlike:
        context = await _apply_named(context, feedback, report)
    if not request.query.strip() and not context.query.ids:
        raise InvalidInput(
            "nothing_to_search_by",
            "The query has no words, and no liked document or text has a vector to search by "
            f"(documents without a vector yet: {len(report['without_vector'])}; unknown: {len(report['unknown'])}).",
        )
    if feedback.documents:
        context = await _apply_best(context, feedback, report)
    return context, report


async def _apply_named(context: SearchContext, feedback: Feedback, report: FeedbackReport) -> SearchContext:
    """Move the query by the documents that the user named. The whole document is meant, so its merged vector counts."""
    request = context.request
    liked, unliked = _document_ids(request.like), _document_ids(request.unlike)
    physical = context.generation.physical
    sources = await _read_vectors(context, [Hit(document, physical, 0.0, {}) for document in (*liked, *unliked)])
    top_k, turns = context.generation.spec.document_top_k, LoopTurns()
    vectors: dict[str, list[SparseVector]] = {}
    for side, ids, examples in (("liked", liked, request.like), ("unliked", unliked, request.unlike)):
        report[side] = _with_vectors(ids, sources, report)
        vectors[side] = []
        for document in report[side]:
            vectors[side].append(document_vector(read_windows(sources[document]), top_k))
            await turns.count(stored_size(sources[document]))
        vectors[side] += [
            _as_document(context.table, document.text) for document in examples if isinstance(document, Example)
        ]
    blend = _apply_feedback(context, feedback, liked=vectors["liked"], unliked=vectors["unliked"])
    context.stopwatch.lap("encode")
    return replace(context.with_blend(blend), excluded_ids=unliked if request.include_liked else [*liked, *unliked])


async def _apply_best(context: SearchContext, feedback: Feedback, report: FeedbackReport) -> SearchContext:
    """Move the query by the best documents of a first round.

    Only the best window of each document counts: the rest of a long document is about other things.
    """
    request = context.request.model_copy(update=_first_round_members(context, feedback))
    first = replace(context, request=request, page=None, selection=context.selection.only_filtered())
    sources = await _read_vectors(context, (await retrieve([first])).hits)
    report["documents"] = _with_vectors(list(sources), sources, report)
    by_id = context.query.by_id()
    vectors, turns = [], LoopTurns()
    for document in report["documents"]:
        best = max(read_packed_windows(sources[document]), key=lambda window: window.vector.dot(by_id))
        vectors.append(SparseVector.unpack(best.vector.text))
        await turns.count(stored_size(sources[document]))
    blend = _apply_feedback(context, feedback, liked=vectors, origin=FEEDBACK_ORIGIN)
    context.stopwatch.lap("encode")
    return context.with_blend(blend)


def _apply_feedback(context: SearchContext, feedback: Feedback, **examples: Any) -> QueryBlend:
    rocchio = RocchioParameters(feedback.alpha, feedback.beta, feedback.gamma, feedback.pieces)
    return apply_rocchio(context.blend, rocchio, context.table.weight, context.settings.max_query_pieces, **examples)


async def _read_vectors(context: SearchContext, hits: Sequence[Hit]) -> dict[str, Source]:
    """Read documents with their vectors, if they have any, as searches see them; by id.

    An updated document has the vectors of its version before until it is encoded, as it has in searches.
    """
    documents = await read_sources(context, hits, ("state", "windows", EARLIER_WINDOWS))
    return {hit.id: with_searched_vectors(hit.source) for hit in documents if hit.source is not None}


def _first_round_members(context: SearchContext, feedback: Feedback) -> dict[str, Any]:
    """Return the members in which the first round's request differs. Without words only the sparse list exists."""
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


def _document_ids(examples: Sequence[str | Example]) -> list[str]:
    return list(dict.fromkeys(example for example in examples if isinstance(example, str)))


def _with_vectors(ids: Sequence[str], sources: Mapping[str, Source], report: FeedbackReport) -> list[str]:
    """Return the ids of documents that have vectors; record the others in the report."""
    usable = []
    for document in ids:
        if document not in sources:
            report["unknown"].append(document)
        elif not sources[document].get("windows"):
            report["without_vector"].append(document)
        else:
            usable.append(document)
    return usable


def _as_document(table: QueryTable, text: str) -> SparseVector:
    """Return a text as the vector of a document that has each of its pieces once."""
    ids = sorted(table.encode(text).ids)
    return SparseVector.of(ids, np.ones(len(ids)))
