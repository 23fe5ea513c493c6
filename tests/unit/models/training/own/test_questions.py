"""Generated questions: generated once, stored, resumed, and filtered by the round trip."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.training.mining import VectorCandidates
from models.training.own import questions
from models.training.own.questions import check_round_trip, generate_pairs, parse_question
from models.training.pairs import Pair, PairSet, Rows
from models.training.teacher_vectors import load_teacher_vectors
from models.training.teachers import Bm25Teacher
from services.encoders.manifest import WEIGHTS_ROOT
from services.errors import ConfigurationError, InvalidInput
from tests.unit.models.training.piece_tokens import PieceTokens

PASSAGES = [f"passage number {number} about wings" for number in range(10)]


class Killed(BaseException):
    """Represent the end of the process by a signal."""


class Asking:
    """A generator that makes two questions a passage, and fails after `die_at` passages."""

    name = "asking"

    def __init__(self, fingerprint: str = "1", die_at: int | None = None) -> None:
        self.fingerprint, self.die_at = fingerprint, die_at
        self.requested: list[str] = []

    def __call__(self, passages: Sequence[str]) -> list[list[str]]:
        if self.die_at is not None and len(self.requested) >= self.die_at:
            raise Killed
        self.requested += passages
        return [[f"1. What is {passage}?", f"Question: What is {passage}?", "no"] for passage in passages]


def test_questions_become_pairs_of_the_origin_question(tmp_path: Path) -> None:
    pairs = generate_pairs(PASSAGES, Asking(), tmp_path)
    assert pairs.counts() == {"question": 10}
    assert pairs.pair(3) == Pair("What is passage number 3 about wings?", PASSAGES[3], "question")


def test_questions_are_asked_once(tmp_path: Path) -> None:
    first = generate_pairs(PASSAGES, Asking(), tmp_path)
    again = Asking()
    done: list[int] = []
    assert generate_pairs(PASSAGES, again, tmp_path, done.append).fingerprint == first.fingerprint
    assert (again.requested, done) == ([], [10])
    other, fewer = Asking("2"), Asking()
    generate_pairs(PASSAGES, other, tmp_path)
    generate_pairs(PASSAGES[:5], fewer, tmp_path)
    assert (len(other.requested), len(fewer.requested)) == (10, 5)


@pytest.mark.parametrize("torn", [b"", b'["What is th', b"\xff\xfe", b'["whole but without an end"]'])
def test_a_killed_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bytes) -> None:
    monkeypatch.setattr(questions, "BLOCK_PASSAGES", 3)
    with pytest.raises(Killed):
        generate_pairs(PASSAGES, Asking(die_at=6), tmp_path)
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(torn)
    resumed = Asking()
    pairs = generate_pairs(PASSAGES, resumed, tmp_path)
    assert resumed.requested == PASSAGES[6:]
    again = Asking()
    generate_pairs(PASSAGES, again, tmp_path)
    assert not again.requested, "what was torn has left nothing in the file"
    assert pairs.fingerprint == generate_pairs(PASSAGES, Asking(), tmp_path / "fresh").fingerprint


def test_a_generator_that_loses_passages_is_refused(tmp_path: Path) -> None:
    class Losing(Asking):
        def __call__(self, passages: Sequence[str]) -> list[list[str]]:
            return super().__call__(passages)[1:]

    with pytest.raises(InvalidInput, match="9 of 10"):
        generate_pairs(PASSAGES, Losing(), tmp_path)


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    class Strange(Asking):
        def __call__(self, passages: Sequence[str]) -> list[list[str]]:
            return [["what is \ud800 here now"] for _ in passages]

    assert generate_pairs(["a", "b"], Strange(), tmp_path).queries == ["what is ? here now"]


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError) as caught:
        generate_pairs(PASSAGES, Asking(), tmp_path / "file")
    assert caught.value.code == "unwritable_directory"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("1. What is lift?", "What is lift?"),
        ("(2) how do wings work", "how do wings work"),
        ('- "What is lift?"', "What is lift?"),
        ("**Question 3:** What is lift?", "What is lift?"),
        ("Question: what is lift", "what is lift"),
        ("Q: what is lift", "what is lift"),
        ("lift", ""),
        ("", ""),
        ("word " * 40, ""),
        ("3.5 km how far is it", "3.5 km how far is it"),
    ],
)
def test_questions_are_parsed_from_lines(line: str, wanted: str) -> None:
    assert parse_question(line) == wanted


def test_the_round_trip_keeps_questions_that_find_their_passage(tmp_path: Path) -> None:
    pairs = PairSet.of(
        [
            Pair("how does a wing lift", "A wing lifts when air flows over it."),
            Pair("heat of a plate", "A plate gains heat in fast air."),
            Pair("what is this about", "Shells buckle under pressure."),
            Pair("wing lift", "Bread is baked in an oven."),
        ]
    )
    teacher = Bm25Teacher(pairs.passages, PieceTokens(WEIGHTS_ROOT / "standin" / "tokenizer.json"))
    found = VectorCandidates(load_teacher_vectors(teacher, pairs, tmp_path), teacher.fingerprint)
    assert check_round_trip(pairs, found, 1).tolist() == [True, True, False, False]
    with pytest.raises(InvalidInput):
        check_round_trip(pairs, found, 0)


def test_the_round_trip_checks_only_the_first_passages() -> None:
    class Listed:
        name, fingerprint = "listed", "1"

        def best(self, query_rows: np.ndarray, depth: int) -> Rows:
            return np.tile(np.array([2, 1, 0], dtype=np.int32)[:depth], (query_rows.size, 1))

    pairs = PairSet.of(Pair(f"q{number}", f"p{number}") for number in range(3))
    for within, wanted in ((1, [False, False, True]), (2, [False, True, True]), (3, [True] * 3)):
        assert check_round_trip(pairs, Listed(), within, block=2).tolist() == wanted
