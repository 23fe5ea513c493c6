"""Compare a real node with the oracle.

The only tolerance is the order in which the engine adds doubles. A score must be the float32 that the oracle predicts.
It may be the neighbouring float32 where the exact sum lies halfway between the two, within the rounding of that
addition.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.encoders.vectors import SparseVector, merge_max
from services.opensearch.client import SyncSearchClient
from services.opensearch.queries import add_rescore, build_search_body, sparse_query
from services.query.expansion import split_query
from tests.congruence import corpora, oracle
from tests.congruence.node_index import SECONDS, NodeIndex, fresh_index, put_raw, query_vector, raw_feature, vector

SEED = 20_240_601


@pytest.fixture(scope="module")
def documents() -> corpora.Vectors:
    return corpora.documents(SEED)


@pytest.fixture(scope="module")
def queries() -> list[dict[int, float]]:
    return corpora.queries(SEED + 1)


@pytest.fixture(scope="module")
def expected(documents: corpora.Vectors, queries: list[dict[int, float]]) -> list[dict[str, oracle.Score]]:
    whole = oracle.Oracle(documents)
    return [whole.scores(query) for query in queries]


@pytest.fixture(scope="module")
def index(search_client: SyncSearchClient, documents: corpora.Vectors) -> Iterator[NodeIndex]:
    """Index the random vectors in several segments. A third is written twice, so deleted copies lie between them."""
    names = list(documents)
    with fresh_index(search_client) as made:
        made.put({name: [vector({7: 9.0})] for name in names[::3]})
        for start in range(0, len(names), 500):
            part = names[start : start + 500]
            made.put_all({name: documents[name] for name in part}, version=2)
        yield made


def test_thousands_of_random_vectors_score_as_predicted(
    index: NodeIndex, queries: list[dict[int, float]], expected: list[dict[str, oracle.Score]]
) -> None:
    """Compare whole lists: the score of each hit, and that no other document is a hit.

    The kinds of queries repeat after twelve, so every seventeenth is one of each kind.
    """
    hits = 0
    exact = 0
    for predicted, found in zip(expected[::17], index.search(queries[::17], 10_000), strict=True):
        oracle.check(predicted, found, 10_000)
        hits += len(found)
        exact += sum(predicted[name].nearest == value for name, value in found)
    assert hits > 75_000
    assert exact > hits * 0.9999, f"{hits - exact} of {hits} scores are not the nearest float32 of the exact sum"


@pytest.mark.parametrize("size", [1, 10, 100])
def test_short_lists_are_the_best_of_the_whole(
    index: NodeIndex, queries: list[dict[int, float]], expected: list[dict[str, oracle.Score]], size: int
) -> None:
    """With a short list the engine skips documents that cannot be among the best. It must skip no other document."""
    for predicted, found in zip(expected, index.search(queries, size), strict=True):
        oracle.check(predicted, found, size)


@pytest.mark.parametrize(("threshold", "window"), [(0.3, 10_000), (0.7, 10_000), (1.0, 100)])
def test_two_phases_give_whole_scores_to_what_heavy_pieces_find(
    index: NodeIndex,
    queries: list[dict[int, float]],
    expected: list[dict[str, oracle.Score]],
    threshold: float,
    window: int,
) -> None:
    """Each phase rounds to a float32 and so does their sum: three roundings where one phase has one."""
    vectors = [query_vector(query) for query in queries[::11]]
    heads = [split_query(vector, threshold) for vector in vectors]
    searches = [
        add_rescore(build_search_body(sparse_query(head), 100, False, SECONDS), tail, window) if tail.ids else None
        for head, tail in heads
    ]
    valid_searches = [search for search in searches if search is not None]
    answers = iter(index.send(valid_searches))
    found_by_heavy = iter(index.search([head.by_id() for head, tail in heads if tail.ids], 10_000))
    for search, predicted in zip(searches, expected[::11], strict=True):
        if search is None:
            continue
        hits, heavy = next(answers), [name for name, _ in next(found_by_heavy)]
        assert len(hits) == min(100, len(heavy))
        for name, score in hits:
            assert score == pytest.approx(predicted[name].nearest, rel=2e-7)
        assert [score for _, score in hits] == sorted((score for _, score in hits), reverse=True)
        if window == 10_000 and len(hits) == 100:
            left = {name: predicted[name].nearest for name in set(heavy) - dict(hits).keys()}
            assert max(left.values(), default=0.0) <= hits[-1][1] * (1 + 2e-7)
    assert len(valid_searches) > 20


def test_one_segment_and_several_shards_change_nothing(
    search_client: SyncSearchClient,
    documents: corpora.Vectors,
    queries: list[dict[int, float]],
    expected: list[dict[str, oracle.Score]],
) -> None:
    for shards, merged in ((1, True), (3, False)):
        with fresh_index(search_client, shards=shards) as made:
            made.put_all(documents)
            if merged:
                made.merge()
            for predicted, found in zip(expected[::5], made.search(queries[::5], 100), strict=True):
                oracle.check(predicted, found, 100)


def test_without_linear_scores_are_others(
    index: NodeIndex, queries: list[dict[int, float]], expected: list[dict[str, oracle.Score]]
) -> None:
    """Show the pitfall as a control: OpenSearch accepts the query without `linear` and computes saturation instead."""
    bare = []
    for query in queries[:200]:
        built = sparse_query(query_vector(query))
        for clause in built["bool"]["should"]:
            assert clause["rank_feature"].pop("linear") == {}
        bare.append(built)
    answers = list(zip(expected, index.ask(bare, 100), strict=False))
    agreeing = [predicted[name].allows(value) for predicted, hits in answers for name, value in hits]
    assert len(agreeing) > 5_000
    assert sum(agreeing) < len(agreeing) / 100
    with pytest.raises(AssertionError):
        for predicted, hits in answers:
            oracle.check(predicted, hits, 100)


def test_every_id_is_safe_as_a_feature_name(search_client: SyncSearchClient) -> None:
    """Search all ids that fit two bytes. Each is found alone with its own weight."""
    weights = {i: float(1 + i % 256) / 256 for i in range(65_536)}
    with fresh_index(search_client) as made:
        for start in range(0, 65_536, 8_192):
            made.put_all({f"d{start}": {i: weights[i] for i in range(start, start + 8_192)}})
        wanted = list(range(0, 65_536, 37))
        for i, hits in zip(wanted, made.search([{i: 1.0} for i in wanted], 10), strict=True):
            assert hits == [(f"d{i // 8_192 * 8_192}", oracle.stored(weights[i]))]


@pytest.mark.parametrize("piece", [".", "...", "##.", "e.g.", "3.14"])
def test_pieces_with_dots_are_lost_as_feature_names(search_client: SyncSearchClient, piece: str) -> None:
    """Show why ids are the feature names:

    OpenSearch indexes a token with a dot without an error and never finds it again.
    """
    with fresh_index(search_client) as made:
        assert put_raw(made, "named", {piece: 1.0, "word": 1.0}) == 201
        assert raw_feature(made, "word") == [("named", 1.0)]
        assert raw_feature(made, piece) == []


def test_weights_too_small_for_lucene_are_left_out_and_the_rest_is_stored(search_client: SyncSearchClient) -> None:
    """FeatureField accepts no denormal float: a single such weight would lose the whole document."""
    normal = corpora.SMALLEST
    denormal = float(np.nextafter(np.float32(normal), np.float32(0)))
    with fresh_index(search_client) as made:
        assert put_raw(made, "control", {"1": 1.0, "2": denormal}) == 400
        made.put_all({"kept": {1: 1.0, 2: denormal, 3: normal, 4: 1e-45, 5: 0.0}})
        assert made.search([{i: 1.0} for i in range(1, 6)], 10) == [[("kept", 1.0)], [], [("kept", normal)], [], []]


def test_the_largest_weights(search_client: SyncSearchClient) -> None:
    """A score beyond float32 is infinite and arrives as a string. Encoders stay 36 powers of ten below."""
    largest = float(np.finfo(np.float32).max)
    with fresh_index(search_client) as made:
        made.put_all({"huge": {1: largest, 2: largest}, "small": {1: 1.0}})
        assert made.search([{1: 1.0}], 10) == [[("huge", oracle.stored(largest)), ("small", 1.0)]]
        assert made.search([{1: 1.0, 2: 1.0}], 10)[0][0] == ("huge", float("inf"))


def test_an_empty_query_matches_nothing_and_an_empty_document_is_no_hit(search_client: SyncSearchClient) -> None:
    with fresh_index(search_client) as made:
        made.put_all({"empty": {}, "one": {5: 1.0}})
        assert made.search([{}, {5: 2.0}, {6: 1.0}], 10) == [[], [("one", 2.0)], []]


def test_a_document_of_windows_scores_by_the_largest_weight_of_each_piece(
    search_client: SyncSearchClient, documents: corpora.Vectors, queries: list[dict[int, float]]
) -> None:
    """The product packs, reads, merges and prunes the windows. The oracle computes the maximum directly."""
    names = [name for name in documents if name.startswith(("ordinary", "tied"))][:1_500]
    groups = {f"g{n}": names[n : n + 3] for n in range(0, len(names), 3)}
    merged: corpora.Vectors = {}
    for group, members in groups.items():
        whole: dict[int, float] = {}
        for member in members:
            for i, weight in documents[member].items():
                whole[i] = max(weight, whole.get(i, 0.0))
        merged[group] = whole
    with fresh_index(search_client) as made:
        made.put({group: [vector(documents[member]) for member in members] for group, members in groups.items()})
        whole = oracle.Oracle(merged)
        for query, found in zip(queries[:100], made.search(queries[:100], 600), strict=True):
            oracle.check(whole.scores(query), found, 600)


def test_pruning_keeps_the_heaviest_pieces(search_client: SyncSearchClient) -> None:
    with fresh_index(search_client, document_top_k=3) as made:
        made.put({"d": [vector({1: 0.5, 2: 0.9}), vector({1: 0.7, 3: 0.6, 4: 0.65})]})
        hits = made.search([{i: 1.0} for i in (1, 2, 3, 4)], 10)
        assert [bool(found) for found in hits] == [True, True, False, True]


NAMES = [f"d{n}" for n in range(8)]
WEIGHTS = st.floats(min_value=corpora.SMALLEST, max_value=2.0**100, width=32)
BOOSTS = st.floats(min_value=2.0**-149, max_value=2.0**20, width=32)
BATCHES = st.fixed_dictionaries({name: st.dictionaries(st.integers(0, 6), WEIGHTS, max_size=7) for name in NAMES})
QUERIES = st.lists(st.dictionaries(st.integers(0, 7), BOOSTS, min_size=1, max_size=8), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def rewritten(search_client: SyncSearchClient) -> Iterator[tuple[NodeIndex, Iterator[int]]]:
    """Yield an index for all examples, and versions by which each example replaces the previous one."""
    with fresh_index(search_client) as made:
        yield made, itertools.count(1)


@settings(max_examples=100)
@given(documents=BATCHES, queries=QUERIES)
def test_whatever_hypothesis_finds(
    rewritten: tuple[NodeIndex, Iterator[int]], documents: corpora.Vectors, queries: list[dict[int, float]]
) -> None:
    """Small cases that shrink: denormal products, denormal boosts, equal scores, documents written over and over."""
    made, versions = rewritten
    made.put_all(documents, next(versions))
    whole = oracle.Oracle(documents)
    for query, found in zip(queries, made.search(queries, 10), strict=True):
        oracle.check(whole.scores(query), found, 10)


def test_merging_agrees_with_the_maximum_by_hand(documents: corpora.Vectors) -> None:
    names = [name for name in documents if name.startswith("ordinary")]
    for first, second in zip(names[:100], names[100:200], strict=True):
        merged = merge_max([vector(documents[first]), vector(documents[second])])
        by_hand = {
            i: max(oracle.stored(documents[name][i]) for name in (first, second) if i in documents[name])
            for i in documents[first].keys() | documents[second].keys()
        }
        assert merged.features() == {str(i): by_hand[i] for i in sorted(by_hand)}
        again = SparseVector.unpack(merged.pack())
        assert again.features() == merged.features()
