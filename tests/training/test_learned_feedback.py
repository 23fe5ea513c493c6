"""Learned maps of feedback, and collections in memory."""

import numpy as np
import pytest

from benchmarks.quality.learned_maps import MAP_DOCUMENTS, MapExamples, MapForm, fit_map, read_input
from benchmarks.quality.memory_collection import LexicalMemory
from services.encoders.vectors import DenseArray

WIDTH = 6


def draw_units(chance: np.random.Generator, rows: int) -> DenseArray:
    vectors = chance.normal(size=(rows, WIDTH)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def make_examples(seed: int, rows: int = 400) -> MapExamples:
    """Return examples whose targets lie between the query and the mean of the windows."""
    chance = np.random.default_rng(seed)
    queries = draw_units(chance, rows)
    windows = [draw_units(chance, MAP_DOCUMENTS) for _ in range(rows)]
    targets = np.array([query + own.mean(axis=0) for query, own in zip(queries, windows, strict=True)])
    names = [f"set{row % 2}-{row}" for row in range(rows)]
    return MapExamples(names, queries, windows, {"relevant": targets, "encoder": queries})


@pytest.mark.parametrize("form", MapForm)
def test_a_map_learns_to_add_the_mean_of_the_windows(form: MapForm) -> None:
    learned = fit_map([make_examples(1), make_examples(2)], "relevant", form)
    unseen = make_examples(3, 20)
    for query, windows, target in zip(unseen.queries, unseen.windows, unseen.targets["relevant"], strict=True):
        assert learned.apply(query, windows) @ (target / np.linalg.norm(target)) > 0.97


def test_a_map_whose_targets_are_the_queries_changes_nothing() -> None:
    learned = fit_map([make_examples(1), make_examples(2)], "encoder", MapForm.mean)
    unseen = make_examples(3, 1)
    assert np.allclose(learned.apply(unseen.queries[0], unseen.windows[0]), unseen.queries[0], atol=1e-5)


def test_missing_windows_count_as_the_query() -> None:
    query = np.ones(WIDTH, np.float32)
    empty = np.empty((0, WIDTH), np.float32)
    assert read_input(query, empty, MapForm.mean).tolist() == [1.0] * 2 * WIDTH
    assert len(read_input(query, empty, MapForm.each)) == (1 + MAP_DOCUMENTS) * WIDTH


def test_examples_are_split_by_their_set() -> None:
    split = make_examples(1, 10).split()
    assert {name: len(own.names) for name, own in split.items()} == {"set0": 5, "set1": 5}


def test_boosted_words_add_their_part_of_the_score() -> None:
    lexical = LexicalMemory({"whale": "a whale at sea", "ship": "a ship on land", "tree": "a tree on land"})
    assert [name for name, _ in lexical.search("whale")] == ["whale"]
    boosted = dict(lexical.search("whale", {"ship": 0.5}))
    assert boosted["ship"] == pytest.approx(0.5 * dict(lexical.search("ship"))["ship"])
    assert lexical.search("the") == []
