"""OpenSearch explains the displayed documents only, not all candidates."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from itertools import product
from typing import Any

import httpx
import pytest

from benchmarks.service import create_index, encode_documents, fill_generation
from models.registry import load_encoder
from services.documents.document import Document
from services.index_spec import Generation, IndexSpec
from services.opensearch.client import Call, SyncSearchClient
from services.settings import Settings

WORDS = ("whale", "sea", "storm", "island", "captain")
# Both indexes have each id, so an id alone does not identify a document. The texts in `more` differ.
TEXTS = [f"{'whale ' * (n % 3 + 1)} {WORDS[n % 5]} and {' '.join(WORDS[: n % 4])}" for n in range(40)]
SPEC = IndexSpec.model_validate({"fields": {"year": "number"}})
RULES = {
    "synonyms": [{"words": ["storm", "great gale"]}],
    "results": [{"match": "every", "pin": [{"id": "d7", "position": 2}, {"id": "d8", "position": 9}]}],
    "boosts": [{"filter": {"field": "year", "is": 3}, "factor": 1.5}],
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"shards": 2, "max_query_pieces": 1024})


@pytest.fixture
def generations(settings: Settings) -> Iterator[dict[str, Generation]]:
    """Create two indexes of two shards each."""
    with closing(SyncSearchClient(settings)) as search:
        made = {}
        for name, texts in (("docs", TEXTS), ("more", [text.replace("whale", "sea") for text in TEXTS])):
            documents = [Document(f"d{n}", text, f"{WORDS[n % 5]} {n}", {"year": n}) for n, text in enumerate(texts)]
            made[name] = create_index(search, settings, name, SPEC)
            fill_generation(search, settings, made[name], encode_documents(load_encoder("standin"), documents))
        yield made


class Sent:
    """The documents that OpenSearch explained, each with its index and the explained score."""

    def __init__(self) -> None:
        self.explained: list[tuple[tuple[str, str], float]] = []
        self.after: Callable[[], Awaitable[None]] | None = None

    async def read(self, call: Call, answer: Any) -> None:
        if call.path.endswith(("/_search", "/_msearch")):
            for one in answer.get("responses", [answer]):
                for hit in one.get("hits", {}).get("hits", ()):
                    if "_explanation" in hit:
                        self.explained.append(((hit["_index"], hit["_id"]), hit["_explanation"]["value"]))
        if self.after is not None:
            await self.after()


@pytest.fixture
def sent(watch_calls: Callable[[Any], None]) -> Sent:
    seen = Sent()
    watch_calls(seen.read)
    return seen


@pytest.fixture
def asking(generations: Mapping[str, Generation], api_here: httpx.AsyncClient) -> httpx.AsyncClient:
    return api_here


async def ask(api: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    path = "/v1/search" if "indexes" in body else "/v1/indexes/docs/search"
    answer = await api.post(path, json={"query": "the whale and the storm", "size": 4} | body)
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def adds_up(hits: list[dict[str, Any]]) -> None:
    for hit in hits:
        for name in ("sparse", "lexical"):
            parts = [why["contribution"] for why in hit["why"] if why["list"] == name]
            assert sum(parts) == pytest.approx(hit["scores"].get(name, 0), rel=1e-5), (name, hit)


# For a page of a single list the service reads one more hit, to learn whether a page follows.
KEYWORDS = {"mode": "lexical"}
CASES: list[tuple[dict[str, Any], int]] = [
    ({}, 0),
    ({"candidates": 7, "mode": "hybrid", "size": 3}, 0),
    (KEYWORDS, 0),
    ({"offset": 4}, 0),
    ({"cursor": "*"}, 0),
    (KEYWORDS | {"cursor": "*"}, 1),
    (KEYWORDS | {"sort": [{"field": "year", "order": "desc"}], "among": "candidates"}, 0),
    (KEYWORDS | {"sort": [{"field": "year", "order": "desc"}]}, 0),
    ({"sort": [{"field": "year"}]}, 0),
    (KEYWORDS | {"rerank": {"model": "cross-encoder"}}, 0),
    ({"rerank": {"model": "cross-encoder"}}, 0),
    ({"two_phase": True, "feedback": {"documents": 2}}, 0),
    ({"facets": {"year": {"terms": 3}}, "filter": {"field": "year", "range": {"lt": 30}}}, 0),
    ({"indexes": ["docs", "more"]}, 0),
    (KEYWORDS | {"indexes": ["docs", "more"]}, 0),
    ({"indexes": ["docs", "more"], "cursor": "*"}, 0),
    (KEYWORDS | {"indexes": ["docs", "more"], "sort": [{"field": "year"}]}, 0),
]


async def test_what_is_shown_is_explained_and_nothing_else(
    asking: httpx.AsyncClient, generations: Mapping[str, Generation], sent: Sent, subtests: pytest.Subtests
) -> None:
    pinned = set()
    for rules in ({}, RULES):
        answer = await asking.put("/v1/indexes/docs/curation", json={"rules": rules}, headers={"if-match": "*"})
        assert answer.status_code == 200, answer.text
        for (body, more), why in product(CASES, ({"explain": True}, {"highlight": True})):
            with subtests.test(rules=bool(rules), **body, **why):
                sent.explained.clear()
                hits = await ask(asking, **body, **why)
                shown = {(generations[hit.get("index", "docs")].physical, hit["id"]): hit["scores"] for hit in hits}
                explained = dict(sent.explained)
                assert shown
                assert len(sent.explained) == len(explained) == len(shown) + more
                for key, scores in shown.items():
                    assert explained[key] == pytest.approx(scores.get("lexical", explained[key]), rel=1e-6)
                pinned |= {hit["id"] for hit in hits if "pinned" in hit}
                if "explain" in why:
                    adds_up(hits)
                    assert [hit for hit in hits if "lexical" in hit["scores"]]
    assert pinned == {"d7"}


async def test_a_query_of_as_many_words_as_opensearch_takes_is_explained(asking: httpx.AsyncClient) -> None:
    """Each of these characters is a word in lexical search, and the same unknown token for the encoder."""
    hits = await ask(asking, query="whale" + "".join(chr(0x3400 + n) for n in range(1023)), explain=True)
    assert all("lexical" in hit["scores"] for hit in hits)
    adds_up(hits)


async def test_what_is_written_meanwhile(
    asking: httpx.AsyncClient, generations: Mapping[str, Generation], sent: Sent, settings: Settings
) -> None:
    """Between the list and the explanation of its best hits, word frequencies change and documents vanish."""
    before = await ask(asking, explain=True)
    gone = before[0]["id"]

    async def write() -> None:
        sent.after = None
        with closing(SyncSearchClient(settings)) as search:
            more = [Document(f"n{n}", "a whale of a whale", "", {}) for n in range(30)]
            fill_generation(search, settings, generations["docs"], encode_documents(load_encoder("standin"), more))
            path = f"/{generations['docs'].physical}/_doc/{gone}"
            search.send(Call("DELETE", path, params={"refresh": "true"}))

    sent.after = write
    after = await ask(asking, explain=True)
    assert [(hit["id"], hit["scores"]) for hit in after] == [(hit["id"], hit["scores"]) for hit in before[1:]]
    adds_up(after)


async def test_a_boost_that_a_document_loses_meanwhile(
    asking: httpx.AsyncClient, generations: Mapping[str, Generation], sent: Sent, settings: Settings
) -> None:
    rules = {"boosts": RULES["boosts"]}
    (await asking.put("/v1/indexes/docs/curation", json={"rules": rules})).raise_for_status()
    before = await ask(asking, explain=True, mode="hybrid", size=40)
    assert [hit["id"] for hit in before if any("boost" in why["origins"] for why in hit["why"] if "origins" in why)]

    async def write() -> None:
        sent.after = None
        with closing(SyncSearchClient(settings)) as search:
            path, changed = f"/{generations['docs'].physical}/_update/d3", b'{"doc": {"metadata": {"year": 4}}}'
            search.send(Call("POST", path, changed, {"refresh": "true"}))

    sent.after = write
    after = await ask(asking, explain=True, mode="hybrid", size=40)
    assert [(hit["id"], hit["scores"]) for hit in after] == [(hit["id"], hit["scores"]) for hit in before]
    adds_up(after)
