"""Teachers that encode queries too, cross-encoders and files of scores, from real small models to a trained step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

from models.progress import SilentReporter
from models.registry import load_encoder
from models.training.evaluation import read_curve
from models.training.losses import RankingLoss
from models.training.pairs import PairSet, read_pairs
from models.training.pipeline import run_recipe
from models.training.prepare import prepare_material
from models.training.recipe import TrainingRecipe, parse_recipe
from models.training.teacher_vectors import SparseRows, load_teacher_vectors
from models.training.teachers import SiameseTeacher
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError
from tests.training.test_rerankers import make_cross_encoder
from tests.training.tiny_start import EXCLUDED
from tests.training.toy_pairs import toy_files, toy_start

TEXTS = ["ask a cat", "the house of a dog", "tell so and so", "x"]
BROKEN = "ask \ud800 a dog"  # half of a surrogate pair, which tokenisers refuse


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_start(tmp_path_factory.mktemp("start") / "start")


@pytest.fixture(scope="module")
def symmetric(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SPLADE model whose both sides are the transformer."""
    directory = tmp_path_factory.mktemp("symmetric")
    SparseEncoder(modules=[MLMTransformer(str(start)), SpladePooling()]).save_pretrained(str(directory))
    return directory


@pytest.fixture(scope="module")
def dense(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dense model with a prompt for queries."""
    directory = tmp_path_factory.mktemp("dense")
    model = SentenceTransformer(str(start))
    model.prompts = {"query": "ask ", "document": ""}
    model.save_pretrained(str(directory))
    return directory


def pairs_of(texts: list[str]) -> PairSet:
    return PairSet(
        texts, texts[::-1], *(np.arange(len(texts), dtype=np.int32),) * 2, ["x"], np.zeros(len(texts), np.int32)
    )


def test_a_sparse_model_scores_as_in_its_library(symmetric: Path, start: Path, tmp_path: Path) -> None:
    teacher = SiameseTeacher(str(symmetric))
    assert isinstance(teacher.encode_queries(TEXTS), SparseRows)
    found = load_teacher_vectors(teacher, pairs_of(TEXTS), tmp_path).scores(np.arange(4), np.arange(4))
    model = SparseEncoder(str(symmetric))
    wanted = model.similarity(model.encode_query(TEXTS), model.encode_document(TEXTS[::-1]))
    assert found == pytest.approx(wanted.to_dense().numpy(), rel=1e-4)
    # A bare masked language model is a sparse model in the library as well.
    bare = SiameseTeacher(str(start)).encode_queries(TEXTS)
    assert isinstance(bare, SparseRows)
    assert np.array_equal(bare.ids, teacher.encode_queries(TEXTS).ids)
    assert len(teacher.encode_queries([BROKEN, ""])) == 2
    assert SiameseTeacher(str(start)).fingerprint == SiameseTeacher(str(start)).fingerprint


def test_a_dense_model_has_its_own_prompts(dense: Path, tmp_path: Path) -> None:
    teacher = SiameseTeacher(str(dense))
    found = load_teacher_vectors(teacher, pairs_of(TEXTS), tmp_path).scores(np.arange(4), np.arange(4))
    model = SentenceTransformer(str(dense))
    wanted = model.similarity(model.encode_query(TEXTS), model.encode_document(TEXTS[::-1])).numpy()
    assert found == pytest.approx(wanted, abs=2e-3)
    without = model.similarity(model.encode(TEXTS), model.encode(TEXTS[::-1])).numpy()
    assert np.abs(found - without).max() > 0.01, "the control: the prompt of queries matters"


def test_a_directory_without_a_model_is_no_teacher(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigurationError, match="is not a usable teacher") as caught:
        SiameseTeacher(str(tmp_path))
    assert caught.value.code == "bad_teacher"


@pytest.fixture
def recipe(start: Path, tmp_path: Path) -> TrainingRecipe:
    files = toy_files(tmp_path / "files", count=48)
    return parse_recipe(
        {
            "start": str(start), "pairs": [{"path": str(files / "pairs.jsonl")}], "collections": [str(files / "toy")],
            "held_out": 0, "steps": 2, "batch": 8, "evaluate_every": 2, "precision": "float32",
            "negatives": {"sources": ["bm25"], "count": 2, "skip": 0},
            "encoder": {"passage_pieces": 16, "query_weighting": "none"},
        },
        "the test",
    )  # fmt: skip


def test_a_cross_encoder_scores_the_candidates_of_each_pair(
    recipe: TrainingRecipe, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cross = make_cross_encoder(tmp_path_factory.mktemp("Cross Encoder"), 1)
    recipe = recipe.changed(teachers=[{"kind": "cross-encoder", "name": str(cross)}], distillation_scale=1)
    found = prepare_material(recipe, tmp_path / "out", SilentReporter())
    assert found.teachers is not None
    assert found.negatives is not None
    pairs, link = found.pairs, 5
    rows = np.concatenate([[pairs.passage_rows[link]], found.negatives[link]])
    scores = found.teachers.vectors[0].scores(pairs.query_rows[[link]], rows)[0]
    wanted = CrossEncoder(str(cross)).predict([(pairs.pair(link).query, pairs.passages[row]) for row in rows])
    assert scores == pytest.approx(wanted, rel=1e-4)
    targets = found.teachers.targets(pairs.query_rows[:8], pairs.passage_rows[:8])
    assert np.isnan(targets).any(), "passages of other queries have no score"
    assert found.teachers.vectors[0].name.startswith("cross-encoder")


def test_a_run_learns_from_candidates_alone(recipe: TrainingRecipe, tmp_path: Path) -> None:
    """The step is finite although most passages of a batch have no target, and a query has none at all."""
    lines = list(read_pairs(recipe.pairs[0].path))
    passages = sorted({pair.passage for pair in lines})
    with (tmp_path / "scores.jsonl").open("w") as file:
        for pair in {pair.query: pair for pair in lines[1:]}.values():
            docs = list(dict.fromkeys([pair.passage, *passages[:3]]))
            scores = [float(place) for place in range(len(docs), 0, -1)]
            file.write(json.dumps({"query": pair.query, "docs": docs, "scores": scores}) + "\n")
    made = recipe.changed(
        teachers=[{"kind": "scores", "name": str(tmp_path / "scores.jsonl")}],
        negatives={"sources": ["scores", "bm25"], "count": 2, "skip": 0},
        contrastive_weight=0,
    )
    directory = run_recipe(made, tmp_path / "out", name="made")
    record = json.loads((directory / "manifest.json").read_text())["training"]
    assert record["recipe"]["teachers"][0]["kind"] == "scores"


def test_passages_without_a_target_change_nothing() -> None:
    queries, passages = torch.rand(3, 5, requires_grad=True), torch.rand(6, 5, requires_grad=True)
    targets, counted = torch.rand(3, 6), torch.ones(3, 6)
    scored = torch.zeros(3, 6)
    scored[0, [0, 3]] = scored[1, [1, 4]] = scored[2, 2] = 1
    labels = torch.stack([targets, counted, scored], dim=1)
    found = RankingLoss(0.0, distils=True).compute_loss_from_embeddings([queries, passages], labels)["distillation"]
    found.backward()
    assert passages.grad is not None
    assert passages.grad.isfinite().all()
    assert passages.grad[[2, 5]].abs().max() == 0, "the third query has one candidate, and the sixth passage no score"
    by_hand = []
    for row, columns in enumerate(([0, 3], [1, 4])):
        student = (queries[row] @ passages[columns].T).log_softmax(0)
        teacher = targets[row, columns].log_softmax(0)
        by_hand.append((teacher.exp() * (teacher - student)).sum().item())
    assert found.item() == pytest.approx(sum(by_hand) / 2, rel=1e-5)


def test_a_symmetric_encoder_gets_a_table(symmetric: Path, recipe: TrainingRecipe, tmp_path: Path) -> None:
    asked = recipe.changed(
        start=str(symmetric),
        train_documents=False,
        teachers=[{"kind": "siamese", "name": str(symmetric)}],
        encoder={"passage_pieces": 16, "query_weighting": "learned", "regulariser": "none"},
        distillation_scale=1,
        table_learning_rate=0.05,
        steps=40,
        evaluate_every=40,
        max_weights=65536,
    )
    made = run_recipe(asked, tmp_path / "run", name="tabled")
    model = SparseEncoder(str(symmetric))
    encoder = load_encoder(str(made))
    for text in TEXTS[:3]:
        wanted = model.encode_document([text])[0].to_dense()
        [found] = encoder.encode(encoder.windows(text))
        weights = torch.zeros_like(wanted)
        weights[torch.from_numpy(found.ids.astype(np.int64))] = torch.from_numpy(found.weights)
        special = sorted(EXCLUDED)
        weights[special] = wanted[special] = 0
        # The exported weights are int8, the documents themselves have not changed.
        assert torch.nn.functional.cosine_similarity(weights, wanted, dim=0) > 0.99
    curve = read_curve(tmp_path / "run")
    table = QueryTable.load(made)
    assert len({round(weight, 3) for weight in table.encode("aska askb askc the of", 100).weights}) > 1
    assert curve[0]["collections"]["toy"]["weights_a_document"] == curve[-1]["collections"]["toy"]["weights_a_document"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"query_weighting": "idf"}}, "say query_weighting = learned"),
        ({"encoder": {"query_weighting": "learned"}, "target_weights": 50}, "train_documents is false"),
    ],
)
def test_a_table_alone_needs_a_learned_table(recipe: TrainingRecipe, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        recipe.changed(train_documents=False, **changes)
