"""Feedback: documents that were named, and the best of a first round, move the query before it is asked for good."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from query_api.search.asked import Asked, Found, Source
from query_api.search.feedback_request import Example, Feedback
from query_api.search.lists import one_list, two_lists
from query_api.search.reading import with_sources
from services.errors import InvalidInput
from services.opensearch.stored_windows import document_vector, read_packed_windows, read_windows
from services.query_table import QueryTable
from services.rocchio import FEEDBACK, Rocchio, moved
from services.vectors import SparseVector

FedBack = dict[str, list[str]]


async def feed_back(asked: Asked) -> None:
    """Moves the query of a request that asks for feedback; what was done is kept for the answer.

    Raises InvalidInput (`nothing_to_search_by`) when there are no words and nothing that is liked has a vector.
    """
    request = asked.request
    done = asked.fed_back = {"documents": [], "liked": [], "unliked": [], "without_vector": [], "unknown": []}
    feedback = request.feedback or Feedback.model_validate({"documents": 0})
    if request.like or request.unlike:
        await _named(asked, feedback, done)
    if not request.query.strip() and not asked.query.ids:
        raise InvalidInput(
            "nothing_to_search_by",
            "There are no words, and nothing that is liked has a vector to search by "
            f"(documents that wait for theirs: {len(done['without_vector'])}, not there: {len(done['unknown'])}).",
        )
    if feedback.documents:
        await _best(asked, feedback, done)


async def _named(asked: Asked, feedback: Feedback, done: FedBack) -> None:
    """What the user named. A whole document is meant, so it is its whole vector that counts."""
    liked, unliked = _ids(asked.request.like), _ids(asked.request.unlike)
    sources = await _stored(asked, [Found(one, 0.0, {}) for one in (*liked, *unliked)])
    top_k = asked.generation.spec.document_top_k
    vectors: dict[str, list[SparseVector]] = {}
    for side, ids, given in (("liked", liked, asked.request.like), ("unliked", unliked, asked.request.unlike)):
        done[side] = _with_vectors(ids, sources, done)
        vectors[side] = [document_vector(read_windows(sources[one]), top_k) for one in done[side]]
        vectors[side] += [_as_document(asked.table, one.text) for one in given if isinstance(one, Example)]
    most = asked.parts.settings.max_query_pieces
    asked.blend = moved(
        asked.blend, _rocchio(feedback), asked.table.weight, most, liked=vectors["liked"], unliked=vectors["unliked"]
    )
    asked.left_out = unliked if asked.request.include_liked else [*liked, *unliked]
    asked.watch.lap("encode")


async def _best(asked: Asked, feedback: Feedback, done: FedBack) -> None:
    """A first round, whose best documents are taken for relevant. Of each, the window counts that answers the query
    best: the rest of a long document is about other things.
    """
    request = asked.request.model_copy(update=_first_round(asked, feedback))
    first = replace(asked, request=request, part=None, selection=asked.selection.only_filtered())
    sources = await _stored(asked, await (two_lists(first) if first.request.mode == "hybrid" else one_list(first)))
    done["documents"] = _with_vectors(list(sources), sources, done)
    by_id = asked.query.by_id()
    vectors = []
    for one in done["documents"]:
        best = max(read_packed_windows(sources[one]), key=lambda window: window.vector.dot(by_id))
        vectors.append(SparseVector.unpack(best.vector.text))
    most = asked.parts.settings.max_query_pieces
    asked.blend = moved(asked.blend, _rocchio(feedback), asked.table.weight, most, liked=vectors, origin=FEEDBACK)
    asked.watch.lap("encode")


async def _stored(asked: Asked, found: Sequence[Found]) -> dict[str, Source]:
    """Documents with their vectors, if they have any, as searches see them."""
    await with_sources(asked, found, ("state", "windows"))
    return {one.id: one.source for one in found if one.source is not None}


def _first_round(asked: Asked, feedback: Feedback) -> dict[str, Any]:
    """What differs in the request of the first round. Without words there is one list to choose from."""
    mode = feedback.choose_by if asked.request.query.strip() else "sparse"
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


def _rocchio(feedback: Feedback) -> Rocchio:
    return Rocchio(feedback.alpha, feedback.beta, feedback.gamma, feedback.pieces)


def _ids(given: Sequence[str | Example]) -> list[str]:
    return list(dict.fromkeys(one for one in given if isinstance(one, str)))


def _with_vectors(ids: Sequence[str], sources: Mapping[str, Source], done: FedBack) -> list[str]:
    """Those of the ids whose documents can feed back; the others are reported."""
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
    """A text as a document that has each of its pieces once."""
    ids = sorted(table.encode(text).ids)
    return SparseVector.of(ids, np.ones(len(ids)))
