"""The pure parts of the benchmarks that choose weights and compare figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.collections import encode_collection, sample_collection
from benchmarks.quality.fusion_weights import SPARSE_SHARES, choose_share, fuse_rankings
from benchmarks.quality.score_comparison import count_equal_scores
from models.judged_collection import JudgedCollection, open_collection
from models.registry import load_encoder


@pytest.fixture
def collection(tmp_path: Path) -> JudgedCollection:
    records = [{"_id": f"d{n}", "text": f"text number {n} of a small set"} for n in range(10)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "a"}\n{"_id": "r", "text": "b"}\n')
    (tmp_path / "qrels.tsv").write_text("q\td4\t1\nq\td5\t1\nr\td5\t1\n")
    return open_collection(tmp_path)


def test_extreme_weights_give_a_single_list() -> None:
    sparse, lexical = {"q": [("a", 3.0), ("b", 1.0)]}, {"q": [("c", 5.0), ("a", 1.0)]}
    assert next(name for name, _ in fuse_rankings(sparse, lexical, 1.0)["q"]) == "a"
    assert next(name for name, _ in fuse_rankings(sparse, lexical, 0.0)["q"]) == "c"
    assert dict(fuse_rankings(sparse, lexical, 0.5)["q"]) == {"a": 0.5, "b": 0.0, "c": 0.5}
    assert fuse_rankings({}, lexical, 0.5).keys() == {"q"}


def test_the_chosen_weight_and_its_spread() -> None:
    def peaked(best: float, height: float) -> dict[str, dict[str, float]]:
        return {f"{share:.1f}": {"ndcg@10": height - abs(share - best) * height} for share in SPARSE_SHARES}

    found = choose_share({"small": peaked(0.2, 1.0), "large": peaked(0.8, 0.5)}, {"small": 1, "large": 99})
    assert (found["best"], found["best_by_query"]) == ("0.2", "0.8")
    assert found["best_without"] == {"small": "0.8", "large": "0.2"}
    assert found["most_lost_to_a_collections_own_best"]["0.2"] == pytest.approx(0.3)


def test_a_sample_keeps_only_judged_documents_of_the_corpus(collection: JudgedCollection) -> None:
    part = sample_collection(collection, 4)
    assert [document.id for document in part.documents()] == ["d0", "d4", "d8"]
    assert part.judgements == {"q": {"d4": 1}}
    assert sample_collection(collection, 1) is collection


def test_stored_vectors_equal_the_encoded_vectors(collection: JudgedCollection, tmp_path: Path) -> None:
    encoder = load_encoder("standin")
    made = encode_collection(collection, encoder, tmp_path / "kept")
    again = encode_collection(collection, encoder, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert list(made) == list(again)
    for name, vector in made.items():
        assert np.array_equal(vector.ids, again[name].ids)
        assert np.array_equal(vector.weights, again[name].weights)


def test_scores_are_compared_as_float32_and_by_rank() -> None:
    exact = {"q": [("a", float(np.float32(38.304256))), ("b", 1.0)], "r": [("a", 1.0)]}
    found = count_equal_scores({"q": [("b", 38.304256), ("a", 1.0)], "r": []}, exact)
    assert (found["compared"], found["equal"], found["lists_of_another_length"]) == (2, 2, 1)
    assert count_equal_scores({"q": [("a", 38.30426), ("b", 1.0)]}, exact)["equal"] == 1
