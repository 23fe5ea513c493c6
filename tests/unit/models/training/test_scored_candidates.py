"""Files of scores: bad lines are refused, documents become passages, and only scored candidates have a target."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.training.mining import MiningRule, mine_negatives
from models.training.pairs import Pair, PairSet, read_pairs
from models.training.scored_candidates import ScoredCandidates, join_score_files
from models.training.storage import ReadReport
from models.training.teacher_vectors import DenseTeacherVectors
from models.training.teachers import TeacherEnsemble
from services.errors import InvalidInput


def write_lines(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.fixture
def pairs() -> PairSet:
    return PairSet.of([Pair("red fruit", "an apple"), Pair("yellow fruit", "a banana"), Pair("blue", "the sea")])


def test_documents_become_passages_and_candidates(pairs: PairSet, tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "scores.jsonl",
        {"query": "red  fruit", "docs": ["a cherry", "an apple", "the sky"], "scores": [9.5, 8, -3]},
        {"query": "yellow fruit", "docs": ["a banana", "a lemon"], "scores": [2, 2.5]},
    )
    joined, [candidates], [report] = join_score_files(pairs, [path])
    assert report.taken == 2
    assert joined.passages == [*pairs.passages, "a cherry", "the sky", "a lemon"]
    assert np.array_equal(joined.passage_rows, pairs.passage_rows), "the links stay"
    scores = candidates.scores(np.array([0, 2]), np.array([0, 3, 4, -1]))
    assert scores[0].tolist()[:3] == [8, 9.5, -3]
    assert np.isnan(scores[0, 3])
    assert np.isnan(scores[1]).all()
    assert candidates.best(np.array([0, 1, 2]), 2).tolist() == [[3, 0], [5, 1], [-1, -1]]


def test_scores_are_a_source_of_negatives(pairs: PairSet, tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "scores.jsonl",
        {"query": "red fruit", "docs": ["an apple", "a cherry", "the sky"], "scores": [9, 8, 1]},
    )
    joined, [candidates], _ = join_score_files(pairs, [path])
    mined = mine_negatives(joined, [candidates.best(np.arange(3), 3)], MiningRule(2, skip=0, depth=3))
    assert sorted(joined.passages[row] for row in mined.rows[0]) == ["a cherry", "the sky"], "the answer is none"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"docs": ["a", "b"], "scores": [1, 2]}, "missing_member"),
        ({"query": "red fruit", "docs": ["a", "b"]}, "missing_member"),
        ({"query": "red fruit", "docs": "a", "scores": [1]}, "wrong_type"),
        ({"query": "red fruit", "docs": ["a", 2], "scores": [1, 2]}, "wrong_type"),
        ({"query": "red fruit", "docs": ["a", " "], "scores": [1, 2]}, "empty_text"),
        ({"query": "red fruit", "docs": ["a", "b"], "scores": [1]}, "bad_scores"),
        ({"query": "red fruit", "docs": ["a"], "scores": [1]}, "bad_scores"),
        ({"query": "red fruit", "docs": ["a", "b"], "scores": [1, "2"]}, "bad_scores"),
        ({"query": "red fruit", "docs": ["a", "b"], "scores": [True, False]}, "bad_scores"),
        ({"query": "red fruit", "docs": ["a b", "a  b"], "scores": [1, 2]}, "bad_scores"),
        ('{"query": "red fruit", "docs": ["a", "b"], "scores": [1, NaN]}', "not_json"),
        ({"query": "green fruit", "docs": ["a", "b"], "scores": [1, 2]}, "unknown_query"),
    ],
)
def test_a_bad_line_is_refused(pairs: PairSet, tmp_path: Path, line: Any, code: str) -> None:
    good = {"query": "blue", "docs": ["the sea", "the sky"], "scores": [1, 2]}
    joined, _, [report] = join_score_files(pairs, [write_lines(tmp_path / "scores.jsonl", line, good)])
    assert report.refused == {code: 1}
    assert joined.passages[-1] == "the sky"
    with pytest.raises(InvalidInput, match="no scores for the queries of the pairs") as caught:
        join_score_files(pairs, [write_lines(tmp_path / "none.jsonl", line)])
    assert caught.value.code == "no_scores"


def test_a_line_of_scores_is_a_pair_too(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "scores.jsonl",
        {"query": "red fruit", "docs": ["a cherry", "an apple"], "scores": [1, 4]},
        {"query": "blue", "docs": ["x"], "scores": [1]},
    )
    report = ReadReport(str(path))
    found = PairSet.of(read_pairs(path, report))
    assert [found.pair(0).query, found.pair(0).passage] == ["red fruit", "an apple"]
    assert report.refused == {"bad_scores": 1}


def test_only_candidates_that_all_teachers_score_have_a_target() -> None:
    dense = DenseTeacherVectors(
        "dense", np.array([[1, 0]], dtype=np.float16), np.array([[0.2, 0], [0.4, 0], [9, 0]], dtype=np.float16)
    )
    rows = np.array([0, 0])
    scored = ScoredCandidates.of("scores", "f", 3, rows, np.array([0, 1]), np.array([5.0, 3.0]))
    targets = TeacherEnsemble([dense, scored], [0.5, 0.5], 10.0).targets(np.array([0]), np.arange(3))
    # Passage 2 has no score, so it is not the bound of the dense teacher's scale either.
    assert targets[0, :2].tolist() == pytest.approx([5.0, 5.0])
    assert np.isnan(targets[0, 2])
    alone = TeacherEnsemble([dense], [1.0], 10.0).targets(np.array([0]), np.arange(3))
    assert np.isfinite(alone).all()


def test_candidates_without_scores() -> None:
    none = ScoredCandidates.of("scores", "f", 3, np.empty(0, int), np.empty(0, int), np.empty(0))
    assert np.isnan(none.scores(np.array([0]), np.arange(3))).all()
    assert none.best(np.array([0]), 2).tolist() == [[-1, -1]]
