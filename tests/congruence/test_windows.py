"""Compare scores by the best window on a real node with the oracle, window by window.

OpenSearch names the same window.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest

from services.encoders.vectors import PackedVector, SparseVector
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.queries import SearchPlan, build_search_body, replace_scores, search_call, sparse_query
from services.query.expansion import split_query
from tests.congruence import oracle
from tests.congruence.node_index import NodeIndex, fresh_index, query_vector, vector

SEED = 5
SECONDS = 60.0
Windowed = dict[str, list[SparseVector]]


def random_vector(rng: random.Random) -> dict[int, float]:
    return {rng.randrange(60): rng.uniform(0.01, 3) for _ in range(rng.randint(1, 12))}


@pytest.fixture(scope="module")
def documents() -> Windowed:
    rng = random.Random(SEED)
    return {f"d{n:03d}": [vector(random_vector(rng)) for _ in range(rng.randint(1, 7))] for n in range(300)}


@pytest.fixture(scope="module")
def queries() -> list[dict[int, float]]:
    rng = random.Random(SEED + 1)
    return [random_vector(rng) for _ in range(60)]


@pytest.fixture(scope="module", params=["nested", "both"])
def index(request: pytest.FixtureRequest, search_client: SyncSearchClient, documents: Windowed) -> Iterator[NodeIndex]:
    """Write every third document twice: the windows of the first copy must be gone."""
    with fresh_index(search_client, windows=request.param) as made:
        made.put({name: [vector({7: 9.0})] * 9 for name in list(documents)[::3]})
        made.put(documents, version=2)
        yield made


def weights(one: SparseVector) -> dict[int, float]:
    return dict(zip(one.ids.tolist(), one.weights.tolist(), strict=True))


def predicted(query: dict[int, float], windows: Sequence[SparseVector]) -> oracle.Score | None:
    """Return the predicted score of the best window.

    If two windows are within a rounding of each other, either may be the best.
    """
    scores = [one for window in windows if (one := oracle.score(query, weights(window))) is not None]
    if not scores:
        return None
    best = max(score.nearest for score in scores)
    low, high = max(score.low for score in scores), max(score.high for score in scores)
    return oracle.Score(best, low, high)


def test_a_document_has_the_score_of_its_best_window(
    index: NodeIndex, documents: Windowed, queries: list[dict[int, float]]
) -> None:
    clauses = [sparse_query(query_vector(query), "window") for query in queries]
    for query, hits in zip(queries, index.ask(clauses, 1000), strict=True):
        expected = {name: score for name, windows in documents.items() if (score := predicted(query, windows))}
        assert {name for name, _ in hits} == expected.keys()
        for name, score in hits:
            assert expected[name].allows(score), (name, score, expected[name])
        assert [score for _, score in hits] == sorted((score for _, score in hits), reverse=True)


def test_the_window_that_opensearch_names_is_the_one_that_is_best_by_its_packed_vector(
    index: NodeIndex, documents: Windowed, queries: list[dict[int, float]]
) -> None:
    """The passage is the window that scored, so a search does not need inner hits."""
    for query in queries[:20]:
        clause = sparse_query(query_vector(query), "window")
        clause["nested"]["inner_hits"] = {"size": 1, "_source": False}
        answer: dict[str, Any] = index.client.send(
            search_call(SearchPlan(index.generation.physical, build_search_body(clause, 50, False, SECONDS)), SECONDS)
        )
        for hit in answer["hits"]["hits"]:
            (inner,) = hit["inner_hits"]["window_vectors"]["hits"]["hits"]
            scores = [PackedVector(window.pack()).dot(query) for window in documents[hit["_id"]]]
            assert scores[inner["_nested"]["offset"]] == pytest.approx(max(scores), rel=1e-6)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 1.0])
def test_two_phases_give_the_score_of_the_window_that_is_best_for_all_pieces(
    index: NodeIndex, queries: list[dict[int, float]], threshold: float
) -> None:
    """The sum of the two maxima would be larger than the maximum of the sums."""
    for query in queries:
        whole = query_vector(query)
        (one_phase,) = index.ask([sparse_query(whole, "window")], 1000)
        head, tail = split_query(whole, threshold)
        if not tail.ids:
            continue
        first = build_search_body(sparse_query(head, "window"), 1000, False, SECONDS)
        plan = replace_scores(first, sparse_query(whole, "window"), 1000)
        answer: dict[str, Any] = index.client.send(search_call(SearchPlan(index.generation.physical, plan), SECONDS))
        found = {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]}
        assert found == pytest.approx({name: score for name, score in one_phase if name in found}, rel=1e-6)


def test_nested_documents_are_no_documents(index: NodeIndex, documents: Windowed) -> None:
    physical = index.generation.physical
    everything = orjson.dumps({"query": {"match_all": {}}})
    assert index.client.send(Call("POST", f"/{physical}/_count", everything))["count"] == len(documents)
    source = index.client.send(Call("GET", f"/{physical}/_doc/d001"))["_source"]
    assert not {"sparse", "window_vectors"} & source.keys()
