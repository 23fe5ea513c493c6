"""Generate requests with Hypothesis for every operation by which a key with the scope `search` can reach documents."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import orjson
from hypothesis import strategies as st


@dataclass(frozen=True)
class Sent:
    """A request with its operation and its text, which a response may repeat."""

    operation: str
    method: str
    path: str
    body: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)


RERANKS: list[dict[str, Any]] = [
    {"model": "dense", "weight": 0.5},
    {"model": "dense", "weight": 1.0, "top": 3, "feedback": {"documents": 2, "weight": 1.0}},
    {"model": "cross-encoder", "weight": 1.0},
]


def searches(names: list[str], words: list[str]) -> tuple[st.SearchStrategy[dict[str, Any]], ...]:
    """Generate search bodies for one index, with every member that could name, count, sort or rank documents."""
    ids = st.lists(st.sampled_from(names), max_size=2, unique=True)
    text = st.lists(st.sampled_from(words), min_size=1, max_size=3).map(" ".join)
    tenants = st.sampled_from(["a", "b", "c"])
    filters = st.one_of(
        st.none(),
        tenants.map(lambda one: {"field": "tenant", "is": one}),
        tenants.map(lambda one: {"not": {"field": "tenant", "is": one}}),
        st.sampled_from(names).map(lambda one: {"field": "_id", "is": one}),
        st.just({"any": [{"field": "year", "exists": True}, {"field": "year", "exists": False}]}),
    )
    facet = {"tenant": {"terms": 10}, "year": {"terms": 10}}
    facets = st.sampled_from([None, facet, {"tenant": {"terms": 5, "ignore_own_filter": True}}, {}])
    sort = st.sampled_from([[], [{"field": "tenant"}], [{"field": "year", "order": "desc"}]])
    plain = st.fixed_dictionaries(
        {
            "query": st.one_of(text, st.just("")),
            "mode": st.sampled_from(["sparse", "lexical", "hybrid"]),
            "filter": filters,
            "facets": facets,
            "sort": sort,
            "size": st.integers(1, 40),
            "offset": st.sampled_from([0, 0, 3]),
            "explain": st.booleans(),
            "highlight": st.booleans(),
            "two_phase": st.booleans(),
            "total": st.booleans(),
            # the stand-in has no scale for it, so most of these searches are refused
            "min_score": st.sampled_from([None, None, None, None, 0.1]),
            "fields": st.sampled_from([["title", "text", "metadata"], ["metadata.tenant"], ["chapters"], []]),
            "score_by": st.sampled_from([None, "window", "document"]),
            "curation": st.booleans(),
            "candidates": st.sampled_from([2, 100]),
            "among": st.sampled_from([None, "matches", "candidates"]),
            "fusion": st.sampled_from(["min_max", {"method": "rrf", "k": 5}]),
            "weights": st.just({"sparse": 1.0, "lexical": 2.0}),
            "prune": st.sampled_from([None, 0.4]),
            "passage": st.just({"fragment": True}),
            "did_you_mean": st.just(True),
            "learn": st.just(True),
        }
    )
    moved = st.fixed_dictionaries(
        {
            "query": text,
            "mode": st.sampled_from(["sparse", "hybrid"]),
            "like": ids,
            "unlike": ids,
            "feedback": st.sampled_from([None, {"documents": 5}]),
            "include_liked": st.booleans(),
            "context": st.one_of(st.none(), text.map(lambda one: {"turns": [one]})),
            "size": st.just(40),
            "explain": st.just(True),
        }
    )
    parts = st.fixed_dictionaries(
        {
            "query": text,
            "unit": st.sampled_from(["passage", "chapter"]),
            "mode": st.sampled_from(["sparse", "lexical", "hybrid"]),
            "filter": filters,
            "size": st.just(40),
            "per_document": st.sampled_from([None, 1]),
            "highlight": st.booleans(),
            "explain": st.booleans(),
        }
    )
    rerank = st.fixed_dictionaries(
        {
            "query": text,
            "mode": st.sampled_from(["sparse", "lexical", "hybrid"]),
            "rerank": st.sampled_from(RERANKS),
            "filter": filters,
            "explain": st.booleans(),
            "size": st.sampled_from([2, 40]),
        }
    )
    return plain, moved, parts, rerank


def rounds(names: list[str], words: list[str]) -> st.SearchStrategy[tuple[Sent, ...]]:
    """Generate a request for every operation that the scope `search` allows, and searches of every kind."""
    kinds = searches(names, words)
    one = st.one_of(*kinds)
    index, document = st.sampled_from(["one", "two"]), st.sampled_from([*names, "nobody"])
    across = st.fixed_dictionaries(
        {
            "indexes": st.just(["one", "two"]),
            "query": st.sampled_from(words),
            "mode": st.sampled_from(["sparse", "lexical", "hybrid"]),
            "size": st.just(80),
            "explain": st.booleans(),
            "highlight": st.booleans(),
            "filter": st.sampled_from([None, {"not": {"field": "tenant", "is": "a"}}]),
            "fields": st.just(["title", "text", "metadata"]),
            "facets": st.sampled_from([None, {"tenant": {"terms": 10}}]),
            "sort": st.sampled_from([[], [{"field": "year"}]]),
            "among": st.sampled_from([None, "matches"]),
        }
    )
    batched = st.lists(st.tuples(one, index).map(lambda pair: pair[0] | {"index": pair[1]}), min_size=1, max_size=3)
    short = st.fixed_dictionaries({"q": st.sampled_from(words), "facet": st.just("tenant:10"), "size": st.just(40)})
    typed = st.fixed_dictionaries(
        {
            "q": st.sampled_from([*words, *(word[:3] for word in words), names[0][:4], names[-1][:5]]),
            "fuzzy": st.sampled_from(["true", "false"]),
        }
    )
    return st.tuples(
        *(
            st.tuples(kind, index).map(lambda pair: Sent("search", "POST", f"/v1/indexes/{pair[1]}/search", pair[0]))
            for kind in kinds
        ),
        st.tuples(short, index).map(
            lambda pair: Sent("search_simply", "GET", f"/v1/indexes/{pair[1]}/search", None, pair[0])
        ),
        across.map(lambda body: Sent("search_across", "POST", "/v1/search", body)),
        batched.map(lambda some: Sent("search_batch", "POST", "/v1/search/batch", {"searches": some})),
        st.tuples(typed, index).map(
            lambda pair: Sent("suggest", "GET", f"/v1/indexes/{pair[1]}/suggest", None, pair[0])
        ),
        st.tuples(index, document).map(
            lambda pair: Sent(
                "get_document", "GET", f"/v1/indexes/{pair[0]}/documents/{quote(pair[1])}", None, {"segments": "true"}
            )
        ),
        st.tuples(index, document).map(
            lambda pair: Sent("get_chapters", "GET", f"/v1/indexes/{pair[0]}/chapters/{quote(pair[1])}")
        ),
        st.tuples(index, st.booleans()).map(
            lambda pair: Sent("export", "GET", f"/v1/indexes/{pair[0]}/export", None, {"vectors": pair[1], "size": 3})
        ),
        index.map(lambda name: Sent("get_index", "GET", f"/v1/indexes/{name}")),
        st.just(Sent("list_indexes", "GET", "/v1/indexes")),
        st.just(Sent("list_encoders", "GET", "/v1/encoders")),
        st.just(Sent("version", "GET", "/version")),
        st.just(Sent("who_am_i", "GET", "/v1/keys/self")),
    )


def ask(client: httpx.Client, sent: Sent) -> Iterator[httpx.Response]:
    """Send a request. Return its response and the responses of the following pages."""
    answer = client.request(sent.method, sent.path, json=sent.body, params=sent.parameters)
    yield answer
    if sent.operation == "export" and answer.status_code == 200:
        while (cursor := _last(answer)) is not None:
            answer = client.get(sent.path, params=sent.parameters | {"cursor": cursor})
            yield answer
    if sent.operation in ("search", "search_across") and "unit" not in sent.body and not sent.body.get("offset"):
        cursor: str | None = "*"
        while cursor is not None and answer.status_code == 200:
            answer = client.post(sent.path, json=sent.body | {"cursor": cursor, "size": 5})
            yield answer
            cursor = answer.json().get("cursor")


def _last(answer: httpx.Response) -> str | None:
    found: str | None = orjson.loads(answer.text.strip().splitlines()[-1])["export"]["cursor"]
    return found
