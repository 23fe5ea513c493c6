"""Keyword search's lists for a collection, from a real node with the service's mapping, analyser and query."""

from collections.abc import Sequence

from benchmarks.filled_index import create, journal
from cli.relevance.collection import Collection
from services.documents import Document
from services.errors import BackendUnavailable
from services.opensearch.client import SyncSearch
from services.opensearch.generations import delete_call, refresh_call
from services.opensearch.queries import Plan, body, lexical_query, msearch_call
from services.settings import Settings

_SECONDS = 120.0
_QUERIES_A_REQUEST = 50


def keyword_lists(
    search: SyncSearch, settings: Settings, collection: Collection, size: int
) -> dict[str, list[tuple[str, float]]]:
    """The best `size` documents of every judged query. The index is made for this and deleted afterwards.

    Documents are journalled as the API does and never encoded: keyword search needs no more.
    """
    generation = create(search, settings, "keywords")
    try:
        journal(
            search, settings, generation, [Document(d.id, d.text, d.title) for d in collection.documents() if d.text]
        )
        search.send(refresh_call(generation.physical))
        return _ask(search, generation.physical, list(collection.judged.items()), size)
    finally:
        search.send(delete_call([generation]))


def _ask(
    search: SyncSearch, physical: str, queries: Sequence[tuple[str, str]], size: int
) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for start in range(0, len(queries), _QUERIES_A_REQUEST):
        some = queries[start : start + _QUERIES_A_REQUEST]
        plans = [body(lexical_query(text), size, False, _SECONDS) for _, text in some]
        answer = search.send(msearch_call([Plan(physical, plan) for plan in plans], _SECONDS))
        for (query, _), response in zip(some, answer["responses"], strict=True):
            if "error" in response or response["timed_out"]:
                raise BackendUnavailable("search_failed", f"OpenSearch could not answer the query {query}.")
            found[query] = [(hit["_id"], float(hit["_score"])) for hit in response["hits"]["hits"]]
    return found
