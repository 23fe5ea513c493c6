"""Mixtures: what a weight and a cap mean, and orders that depend on nothing but seed and epoch."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from models.training.batches import MixtureFile, PairMixture, epoch_order, read_mixture
from models.training.pairs import Pair, PairSet, write_pairs
from services.errors import InvalidInput


def numbered(origin: str, count: int) -> list[Pair]:
    return [Pair(f"{origin} q{number}", f"{origin} p{number}", origin) for number in range(count)]


PAIRS = PairSet.of(numbered("a", 10) + numbered("b", 40) + numbered("c", 7))


def test_without_weights_an_epoch_sees_each_link_once() -> None:
    order = epoch_order(PAIRS, {}, 1, 0)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(57))
    assert order.tolist() != list(range(57))


def test_weights_are_how_often_an_epoch_sees_a_link() -> None:
    order = epoch_order(PAIRS, {"a": 2.0, "b": 0.25}, 1, 0)
    seen = Counter(order.tolist())
    assert [seen[link] for link in range(10)] == [2] * 10
    assert sum(seen[link] for link in range(10, 50)) == 10
    assert [seen[link] for link in range(50, 57)] == [1] * 7


def test_four_epochs_of_a_quarter_see_everything_once() -> None:
    seen = Counter(link for epoch in range(4) for link in epoch_order(PAIRS, {"b": 0.25, "c": 0.3}, 1, epoch).tolist())
    assert [seen[link] for link in range(10, 50)] == [1] * 40
    assert sum(seen[link] for link in range(50, 57)) == int(4 * 0.3 * 7)


@pytest.mark.parametrize(
    ("weights", "epochs"),
    [({}, 1), ({"a": 2.0, "b": 3.0}, 1), ({"a": 0.25}, 4), ({"a": 0.1, "b": 0.25}, 20), ({"a": 0.001}, 100)],
)
def test_a_cycle_leaves_no_pair_of_a_small_weight_unseen(weights: dict[str, float], epochs: int) -> None:
    seen = Counter(PairMixture(PAIRS, weights).cycle(1).tolist())
    assert [seen[link] for link in range(50, 57)] == [epochs] * 7
    if weights.get("a") != 0.001:
        assert [seen[link] for link in range(10)] == [round(epochs * weights.get("a", 1.0))] * 10


def test_an_order_depends_on_seed_and_epoch_only() -> None:
    first = epoch_order(PAIRS, {}, 1, 3)
    assert first.tolist() == epoch_order(PAIRS, {}, 1, 3).tolist()
    assert first.tolist() != epoch_order(PAIRS, {}, 1, 4).tolist()
    assert first.tolist() != epoch_order(PAIRS, {}, 2, 3).tolist()


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


def test_what_is_no_mixture_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", numbered("a", 3))
    for files in ([], [MixtureFile(tmp_path / "a.jsonl"), MixtureFile(tmp_path / "a.jsonl")]):
        with pytest.raises(InvalidInput, match="different name"):
            read_mixture(files, 0)
    for weight, cap in ((0.0, None), (-1.0, None), (float("nan"), None), (float("inf"), None), (1.0, 0)):
        with pytest.raises(InvalidInput) as caught:
            MixtureFile(tmp_path / "a.jsonl", weight=weight, cap=cap)
        assert caught.value.code == "bad_mixture"
