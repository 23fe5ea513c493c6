"""The mask of false negatives in a batch, mixture weights and caps, and reproducible epoch orders."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.batches import (
    MixtureFile,
    PairMixture,
    PositiveLinks,
    epoch_order,
    mask_false_negatives,
    read_mixture,
)
from models.training.pairs import Pair, PairSet, write_pairs
from services.errors import InvalidInput

# Relevant passages: 0 and 1 for query 0, 2 for query 1, 0 for query 2.
PAIRS = PairSet.of([Pair("a", "p0"), Pair("a", "p1"), Pair("b", "p2"), Pair("c", "p0")])
POSITIVES = PositiveLinks(PAIRS)


def masked(queries: list[int], passages: list[int], own: list[int] | None = None) -> list[list[int]]:
    mask = mask_false_negatives(
        POSITIVES, np.array(queries), np.array(passages), None if own is None else np.array(own)
    )
    assert mask.shape == (len(queries), len(passages))
    return [np.flatnonzero(row).tolist() for row in mask]


def test_known_links() -> None:
    found = POSITIVES.holds(np.array([0, 0, 0, 1, 2, -1]), np.array([0, 1, 2, 2, -1, 0]))
    assert found.tolist() == [True, True, False, True, False, False]
    assert not PositiveLinks(PairSet.of([])).holds(np.array([0]), np.array([0])).any()


def test_unrelated_passages_are_not_masked() -> None:
    assert masked([1, 2], [2, 0]) == [[], []]


def test_other_answers_of_the_query_are_masked() -> None:
    assert masked([0, 1], [0, 2, 1]) == [[2], []]
    assert masked([2, 0], [0, 1]) == [[], [0]]


def test_later_copies_of_a_passage_are_masked() -> None:
    # Queries 0 and 2 share passage 0. Each keeps its own column; query 1 sees the passage once.
    assert masked([0, 2, 1], [0, 0, 2]) == [[1], [0], [1]]


def test_columns_without_a_passage_are_masked() -> None:
    assert masked([1, 2], [2, 0, -1, -1]) == [[2, 3], [2, 3]]


def test_own_columns_may_be_anywhere() -> None:
    assert masked([1, 2], [1, 0, 2], own=[2, 1]) == [[], []]


def test_the_earlier_copy_of_an_unlinked_own_passage_is_masked() -> None:
    assert masked([1, 2], [0, 0], own=[1, 0]) == [[0], [1]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.lists(st.integers(-1, 2), max_size=8))
def test_own_columns_are_kept_and_answers_are_masked(links: list[int], negatives: list[int]) -> None:
    queries, own_passages = PAIRS.query_rows[links], PAIRS.passage_rows[links]
    passages = np.concatenate([own_passages, np.array(negatives, dtype=np.int32)])
    mask = mask_false_negatives(POSITIVES, queries, passages)
    for row, query in enumerate(queries.tolist()):
        assert not mask[row, row]
        kept = [int(passages[column]) for column in np.flatnonzero(~mask[row]) if column != row]
        assert len(kept) == len(set(kept))
        assert -1 not in kept
        assert not any((query, passage) in {(0, 0), (0, 1), (1, 2), (2, 0)} for passage in kept)


def numbered(origin: str, count: int) -> list[Pair]:
    return [Pair(f"{origin} q{number}", f"{origin} p{number}", origin) for number in range(count)]


MIXED = PairSet.of(numbered("a", 10) + numbered("b", 40) + numbered("c", 7))


def test_without_weights_an_epoch_sees_each_link_once() -> None:
    order = epoch_order(MIXED, {}, 1, 0)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(57))
    assert order.tolist() != list(range(57))


def test_weights_are_how_often_an_epoch_sees_a_link() -> None:
    order = epoch_order(MIXED, {"a": 2.0, "b": 0.25}, 1, 0)
    seen = Counter(order.tolist())
    assert [seen[link] for link in range(10)] == [2] * 10
    assert sum(seen[link] for link in range(10, 50)) == 10
    assert [seen[link] for link in range(50, 57)] == [1] * 7


def test_four_epochs_of_a_quarter_see_everything_once() -> None:
    seen = Counter(link for epoch in range(4) for link in epoch_order(MIXED, {"b": 0.25, "c": 0.3}, 1, epoch).tolist())
    assert [seen[link] for link in range(10, 50)] == [1] * 40
    assert sum(seen[link] for link in range(50, 57)) == int(4 * 0.3 * 7)


@pytest.mark.parametrize(
    ("weights", "epochs"),
    [({}, 1), ({"a": 2.0, "b": 3.0}, 1), ({"a": 0.25}, 4), ({"a": 0.1, "b": 0.25}, 20), ({"a": 0.001}, 100)],
)
def test_a_cycle_sees_every_pair_of_a_small_weight(weights: dict[str, float], epochs: int) -> None:
    seen = Counter(PairMixture(MIXED, weights).cycle(1).tolist())
    assert [seen[link] for link in range(50, 57)] == [epochs] * 7
    if weights.get("a") != 0.001:
        assert [seen[link] for link in range(10)] == [round(epochs * weights.get("a", 1.0))] * 10


def test_an_order_depends_on_seed_and_epoch_only() -> None:
    first = epoch_order(MIXED, {}, 1, 3)
    assert first.tolist() == epoch_order(MIXED, {}, 1, 3).tolist()
    assert first.tolist() != epoch_order(MIXED, {}, 1, 4).tolist()
    assert first.tolist() != epoch_order(MIXED, {}, 2, 3).tolist()


def test_files_with_caps_and_weights(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", [pair._replace(origin="") for pair in numbered("a", 10)])
    write_pairs(tmp_path / "b.jsonl.gz", numbered("title", 20) + numbered("crop", 20))
    files = [MixtureFile(tmp_path / "a.jsonl", weight=2.0), MixtureFile(tmp_path / "b.jsonl.gz", "own", cap=15)]
    found = read_mixture(files, 5)
    assert sum(found.pairs.counts().values()) == 25
    assert found.weights == {"a": 2.0, "own/title": 1.0, "own/crop": 1.0}
    assert found.epoch(0, 0).size == 35
    assert [report.taken for report in found.reports] == [10, 40]
    assert read_mixture(files, 5).pairs.fingerprint == found.pairs.fingerprint
    assert read_mixture(files, 6).pairs.fingerprint != found.pairs.fingerprint
    alone = read_mixture(files[1:], 5).pairs
    assert set(alone.queries) <= set(found.pairs.queries)


def test_invalid_mixtures_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", numbered("a", 3))
    for files in ([], [MixtureFile(tmp_path / "a.jsonl"), MixtureFile(tmp_path / "a.jsonl")]):
        with pytest.raises(InvalidInput, match="different name"):
            read_mixture(files, 0)
    for weight, cap in ((0.0, None), (-1.0, None), (float("nan"), None), (float("inf"), None), (1.0, 0)):
        with pytest.raises(InvalidInput) as caught:
            MixtureFile(tmp_path / "a.jsonl", weight=weight, cap=cap)
        assert caught.value.code == "bad_mixture"
