"""Keyword search's lists for a collection, from a real node with the service's mapping, analyser and query."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.filled_index import create, journal
from cli.relevance.collection import Collection
from services.documents import Document
from services.errors import BackendUnavailable
from services.opensearch.client import SyncSearch
from services.opensearch.generations import delete_call, refresh_call
from services.opensearch.queries import Plan, body, lexical_query, msearch_call
from services.settings import Settings

Lists = dict[str, list[tuple[str, float]]]

_SECONDS = 120.0
_QUERIES_A_REQUEST = 50


@dataclass(frozen=True)
class KeywordIndex:
    """A collection's documents, found by keyword."""

    search: SyncSearch
    physical: str

    def lists(self, queries: Mapping[str, dict[str, Any]], size: int) -> Lists:
        """The best `size` documents of each OpenSearch query."""
        found: Lists = {}
        names = list(queries)
        for start in range(0, len(names), _QUERIES_A_REQUEST):
            some = names[start : start + _QUERIES_A_REQUEST]
            plans = [Plan(self.physical, body(queries[name], size, False, _SECONDS)) for name in some]
            answer = self.search.send(msearch_call(plans, _SECONDS))
            for name, response in zip(some, answer["responses"], strict=True):
                if "error" in response or response["timed_out"]:
                    raise BackendUnavailable("search_failed", f"OpenSearch could not answer the query {name}.")
                found[name] = [(hit["_id"], float(hit["_score"])) for hit in response["hits"]["hits"]]
        return found


@contextmanager
def keyword_index(search: SyncSearch, settings: Settings, collection: Collection) -> Iterator[KeywordIndex]:
    """An index that is made for this and deleted afterwards.

    Documents are journalled as the API does and never encoded: keyword search needs no more.
    """
    generation = create(search, settings, "keywords")
    try:
        documents = [Document(d.id, d.text, d.title) for d in collection.documents() if d.text]
        journal(search, settings, generation, documents)
        search.send(refresh_call(generation.physical))
        yield KeywordIndex(search, generation.physical)
    finally:
        search.send(delete_call([generation]))


def keyword_lists(search: SyncSearch, settings: Settings, collection: Collection, size: int) -> Lists:
    """The best `size` documents of every judged query."""
    with keyword_index(search, settings, collection) as index:
        return index.lists({query: lexical_query(text) for query, text in collection.judged.items()}, size)
