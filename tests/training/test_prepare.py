"""Preparation of a run: teachers of every kind, negatives of every source, the consistency filter."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from models.progress import SilentReporter
from models.training.mining import IndexCandidates, passage_id
from models.training.own import questions
from models.training.pairs import Pair, PairSet
from models.training.prepare import open_start, prepare_material
from models.training.recipe import TrainingRecipe, parse_recipe
from models.training.run_directory import run_identity
from services.errors import ConfigurationError
from tests.training.tiny_dense import write_model
from tests.training.toy_pairs import toy_start

WORDS = [
    "wing",
    "lift",
    "drag",
    "heat",
    "flow",
    "shock",
    "wave",
    "layer",
    "body",
    "plate",
    "nose",
    "cone",
    "jet",
    "fuel",
    "pump",
    "valve",
    "tank",
    "rotor",
    "blade",
    "gear",
]


class Lines(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def report(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def recipe(tmp_path: Path) -> TrainingRecipe:
    """Return a recipe with forty matching pairs, and a few pairs that do not match."""
    pairs = [
        (f"{one} {other}", f"the {one} and the {other} in figure {number}")
        for number, (one, other) in enumerate(
            zip(WORDS * 2, WORDS[3:] + WORDS[:3] + WORDS[7:] + WORDS[:7], strict=True)
        )
    ]
    pairs += [
        (f"banana {letter}", f"the price of copper fell by {number} in june") for number, letter in enumerate("qrstuv")
    ]
    lines = "".join(json.dumps({"query": query, "passage": passage}) + "\n" for query, passage in pairs)
    (tmp_path / "pairs.jsonl").write_text(lines)
    return parse_recipe(
        {
            "start": str(toy_start(tmp_path / "start")),
            "pairs": [{"path": str(tmp_path / "pairs.jsonl")}],
            "teachers": [
                {"kind": "dense", "name": str(write_model(tmp_path / "tiny-dense")), "weight": 1.0},
                {"kind": "bm25", "weight": 5.0},
                {"kind": "sparse", "name": "standin", "weight": 4.0},
            ],
            "negatives": {"sources": ["bm25", "dense", "sparse", "index"], "index": "served", "count": 4, "skip": 0},
            "consistency": {"within": 3},
            "distillation_scale": 10.0,
            "held_out": 0.1,
            "encoder": {"passage_pieces": 16},
        },
        "the test",
    )


def served(pairs: PairSet) -> IndexCandidates:
    def search(texts: Sequence[str], depth: int) -> list[list[str]]:
        return [[passage_id(text) for text in reversed(pairs.passages)][:depth]] * len(texts)

    return IndexCandidates(pairs, search, name="index-hybrid", fingerprint="1")


def test_all_material_of_a_recipe_is_prepared(recipe: TrainingRecipe, tmp_path: Path) -> None:
    show = Lines()
    found = prepare_material(recipe, tmp_path / "out", show, index=served)
    pairs = found.pairs
    strangers = [link for link in range(len(pairs)) if "banana" in pairs.pair(link).query]
    assert len(strangers) <= 2  # without shared words, only the (random) dense teacher judges
    assert len(pairs) > 30
    assert any(f"{len(pairs)} of " in line and "are consistent" in line for line in show.said)
    assert found.teachers is not None
    assert found.teachers.weights == [0.1, 0.5, 0.4]
    assert [type(one).__name__ for one in found.teachers.vectors] == [
        "DenseTeacherVectors",
        "SparseTeacherVectors",
        "SparseTeacherVectors",
    ]
    targets = found.teachers.targets(pairs.query_rows[:20], pairs.passage_rows[:20])
    assert targets.min() >= 0
    assert (targets.argmax(axis=1) == range(20)).mean() > 0.9  # the query's own passage
    assert 5 < targets.max() <= 10
    assert found.negatives is not None
    assert found.negatives.shape == (len(pairs), 4)
    assert not (found.negatives == pairs.passage_rows[:, None]).any()
    for source in ("tiny-dense", "bm25-words", "standin", "index-hybrid"):
        assert list((tmp_path / "out" / "vectors").glob(f"candidates-{source}-*")), source
    assert [one.name for one in found.judged] == ["held out"]
    assert sorted(found.order.tolist()) == list(range(len(pairs)))


def test_invalid_starts_are_refused_before_teachers_encode(recipe: TrainingRecipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="this model reads at most 40"):
        prepare_material(recipe.changed(encoder={"passage_pieces": 41}), tmp_path / "out", SilentReporter())
    assert not (tmp_path / "out").exists()


def test_an_index_without_a_search_is_refused(recipe: TrainingRecipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot search one"):
        prepare_material(
            recipe.changed(teachers=[{"kind": "bm25"}], negatives={"sources": ["index"], "index": "x"}),
            tmp_path,
            SilentReporter(),
        )


def test_a_recipe_without_evaluation_is_refused(recipe: TrainingRecipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        prepare_material(recipe.changed(held_out=0.0), tmp_path, SilentReporter())
    assert caught.value.code == "nothing_to_evaluate"


def test_questions_that_fail_the_round_trip_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train own --generator` keeps a question only if the start finds its passage."""

    class Generator:
        name, fingerprint = "generator", "1"

        def __init__(self, directory: Path) -> None:
            assert directory == tmp_path / "generator"

        def __call__(self, passages: Sequence[str]) -> list[list[str]]:
            return [["what is the price of copper" if "rotor" in text else f"what about {text}"] for text in passages]

    monkeypatch.setattr(questions, "CausalQuestionGenerator", Generator)
    pairs = PairSet.of(Pair(f"q {word}", f"{word} and {word} again") for word in WORDS)
    show = Lines()
    found = questions.make_question_generator(tmp_path / "generator", "standin", tmp_path, show)(pairs)
    assert found.counts() == {"question": len(WORDS) - 1}
    assert not [text for text in found.passages if "rotor" in text]
    assert show.said == [f"{len(WORDS) - 1} of {len(WORDS)} questions find their passage."]


def test_a_fetched_start_is_copied_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is copied to another machine continues, although its cache has another path there."""
    fetched = toy_start(tmp_path / "cache")
    asked: list[str] = []

    def fetch(name: str, cache: Path, report: object) -> Path:
        asked.append(name)
        return fetched

    monkeypatch.setattr("models.training.prepare.fetch_model", fetch)
    out = tmp_path / "run"
    for _ in range(2):
        start = open_start("all-minilm-l6-v2-checkpoint", out, lambda message: None)
        assert start == str(out / "start-all-minilm-l6-v2-checkpoint")
    assert asked == ["all-minilm-l6-v2-checkpoint"] * 2
    assert sorted(path.name for path in Path(start).iterdir()) == sorted(path.name for path in fetched.iterdir())
    (tmp_path / "pairs.jsonl").write_text('{"query": "a", "passage": "b"}\n')
    pairs = [{"path": str(tmp_path / "pairs.jsonl")}]
    recipe = parse_recipe({"start": start, "pairs": pairs}, "test")
    assert run_identity(recipe, out)["start"] == "start-all-minilm-l6-v2-checkpoint"
    assert open_start(str(fetched), out, lambda message: None) == str(fetched)
