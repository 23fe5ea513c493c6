"""A training run learns, resumes after a stop, and survives failures."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.encoder import PieceTokeniser
from models.export.collection import read_collection
from models.idf import passage_idf
from models.judged_queries import JudgedQueries
from models.training.architecture import build_encoder, save_checkpoint
from models.training.batches import MixtureFile, read_mixture
from models.training.evaluation import CurveEvaluator, encode_texts, read_best_evaluation, read_curve
from models.training.losses import RankingLoss
from models.training.recipe import TrainingRecipe, parse_recipe
from models.training.run_directory import CHECKPOINTS, begin_run, last_checkpoint
from models.training.train import TrainingMaterial, train_encoder, training_arguments
from models.training.trainer import (
    ChunkedSpladeLoss,
    DensityControl,
    GuardedTrainer,
    is_out_of_memory,
)
from services.errors import ConfigurationError
from tests.training.toy_pairs import toy_files, toy_recipe, toy_start

Recipe = Callable[..., TrainingRecipe]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("toy")
    return toy_start(root / "start"), toy_files(root / "files")


@pytest.fixture
def recipe(toy: tuple[Path, Path]) -> Recipe:
    def make(**changes: Any) -> TrainingRecipe:
        return parse_recipe(toy_recipe(*toy, **changes), "toy")

    return make


@pytest.fixture(scope="module")
def material(toy: tuple[Path, Path]) -> TrainingMaterial:
    start, files = toy
    mixture = read_mixture([MixtureFile(files / "pairs.jsonl")], 0)
    idf = passage_idf(PieceTokeniser.load(start / "tokenizer.json"), mixture.pairs.passages)
    judged = [JudgedQueries.of(read_collection(files / "toy"), 1000)]
    return TrainingMaterial(mixture.pairs, mixture.epoch(0, 0), None, None, idf, judged)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(directory / "model.safetensors")
    return found


def test_a_run_learns_matches_without_a_common_word(recipe: Recipe, material: TrainingMaterial, tmp_path: Path) -> None:
    train_encoder(recipe(), material, tmp_path)
    curve = read_curve(tmp_path)
    assert [entry["step"] for entry in curve] == [0, 50, 100]
    assert curve[0]["mean"] < 0.3
    assert curve[-1]["mean"] > 0.6
    assert curve[-1]["collections"]["toy"]["bm25"] == 0  # no passage contains the query's word
    assert curve[-1]["collections"]["toy"]["weights_a_document"] < curve[0]["collections"]["toy"]["weights_a_document"]


@pytest.mark.parametrize("target", [6.0, 9.0])
def test_lambda_follows_the_density_that_a_recipe_asks_for(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, target: float
) -> None:
    # Dropout makes passages denser in training than in an evaluation, where the toy's had half as many weights.
    start = str(toy_start(tmp_path / "start", dropout=0.0))
    asked = recipe(start=start, target_weights=target, steps=300, evaluate_every=300)
    train_encoder(asked, material, tmp_path / "run")
    checkpoint = last_checkpoint(tmp_path / "run" / CHECKPOINTS)
    assert checkpoint is not None
    control = json.loads((checkpoint / DensityControl.FILE).read_bytes())
    assert control["density"] == pytest.approx(target, rel=0.2)
    found = read_curve(tmp_path / "run")[-1]["collections"]["toy"]["weights_a_document"]
    assert found == pytest.approx(target, rel=0.25)


def test_a_resumed_run_continues_with_the_lambda_that_it_had(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(target_weights=8.0)
    train_encoder(asked, material, tmp_path / "whole")
    stop_after(monkeypatch, 75)
    with pytest.raises(Stopped):
        train_encoder(asked, material, tmp_path / "stopped")
    monkeypatch.undo()
    train_encoder(asked, material, tmp_path / "stopped")
    whole, resumed = (
        json.loads((tmp_path / name / CHECKPOINTS / "checkpoint-100" / DensityControl.FILE).read_bytes())
        for name in ("whole", "stopped")
    )
    assert resumed == pytest.approx(whole, rel=0.02)
    assert whole["lambda"] != asked.regulariser_weight


def test_a_density_needs_a_regulariser(recipe: Recipe) -> None:
    with pytest.raises(ConfigurationError, match="regulariser is none"):
        recipe(target_weights=8.0, encoder={"regulariser": "none"})
    with pytest.raises(ConfigurationError, match="which is 0"):
        recipe(target_weights=8.0, regulariser_weight=0.0)


class Stopped(Exception):
    pass


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    ordinary = GuardedTrainer.training_step

    def training_step(self: GuardedTrainer, *arguments: Any, **named: Any) -> torch.Tensor:
        if self.state.global_step == step:
            raise Stopped
        return ordinary(self, *arguments, **named)

    monkeypatch.setattr(GuardedTrainer, "training_step", training_step)


def test_a_resumed_run_equals_an_uninterrupted_run(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_encoder(recipe(), material, tmp_path / "whole")
    with monkeypatch.context() as patched:
        stop_after(patched, 70)
        with pytest.raises(Stopped):
            train_encoder(recipe(), material, tmp_path / "stopped")
    half_written = tmp_path / "stopped" / CHECKPOINTS / "checkpoint-70"
    half_written.mkdir()
    (half_written / "trainer_state.json").write_text("{")
    resumed = train_encoder(recipe(), material, tmp_path / "stopped")
    assert [entry["step"] for entry in read_curve(tmp_path / "stopped")] == [0, 50, 100]
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name], tensor)


def test_repeating_a_finished_run_does_nothing(recipe: Recipe, material: TrainingMaterial, tmp_path: Path) -> None:
    train_encoder(recipe(), material, tmp_path)
    steps: list[int] = []
    train_encoder(recipe(), material, tmp_path, report=lambda step, total, logs: steps.append(step))
    assert len(read_curve(tmp_path)) == 3
    assert not [step for step in steps if step < 100]


def test_another_recipe_needs_another_directory(recipe: Recipe, material: TrainingMaterial, tmp_path: Path) -> None:
    train_encoder(recipe(steps=1), material, tmp_path)
    with pytest.raises(ConfigurationError, match="another recipe") as caught:
        train_encoder(recipe(steps=2), material, tmp_path)
    assert caught.value.code == "recipe_changed"


def test_other_pairs_in_the_same_file_need_another_directory(toy: tuple[Path, Path], tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_bytes((toy[1] / "pairs.jsonl").read_bytes())
    recipe = parse_recipe(toy_recipe(*toy, pairs=[{"path": str(pairs)}]), "toy")
    begin_run(recipe, tmp_path / "out")
    begin_run(recipe, tmp_path / "out")
    with pairs.open("a") as file:
        file.write('{"query": "aska", "passage": "one more"}\n')
    with pytest.raises(ConfigurationError, match="other pairs") as caught:
        begin_run(recipe, tmp_path / "out")
    assert caught.value.code == "recipe_changed"


def test_a_run_may_have_several_paths(toy: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def begin(out: Path) -> None:
        pairs = [{"path": out / "pairs.jsonl"}]  # as `train own` writes them
        begin_run(parse_recipe(toy_recipe(*toy) | {"start": str(out / "start-0123"), "pairs": pairs}, "toy"), out)

    Path("out").mkdir()
    shutil.copyfile(toy[1] / "pairs.jsonl", "out/pairs.jsonl")
    begin(Path("out"))
    begin(tmp_path / "out")
    shutil.copytree("out", "elsewhere")
    begin(Path("elsewhere"))


def test_the_best_evaluation_is_that_of_the_directory_best(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path
) -> None:
    train_encoder(recipe(steps=1), material, tmp_path)
    with (tmp_path / "curve.jsonl").open("a") as file:  # as if a kill had lost the encoder
        file.write(json.dumps({"step": 9, "seconds": 1.0, "mean": 1.0, "collections": {}}) + "\n")
    kept = read_best_evaluation(tmp_path)
    assert kept is not None
    assert kept["mean"] < 1
    assert CurveEvaluator(material.judged, tmp_path, save_checkpoint).best == (kept["eligible"], kept["mean"])
    (tmp_path / "best").rename(tmp_path / ".best.old")  # as a kill between two renames leaves it
    assert read_best_evaluation(tmp_path) == kept
    assert (tmp_path / "best").is_dir()


def test_a_dense_checkpoint_of_the_ramp_does_not_win(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The regulariser's weight grows until the ramp ends; before, the encoder is dense and finds more."""
    scores = iter([0.2, 0.9, 0.6, 0.7, 0.5])

    def evaluate(judged: object, documents: object, queries: object) -> tuple[dict[str, float], np.ndarray]:
        figures = {"sparse": next(scores), "bm25": 0.0, "hybrid": 0.0, "weights_a_document": 9.0, "flops": 1.0}
        return figures, np.zeros(1)

    monkeypatch.setattr("models.training.evaluation.evaluation_figures", evaluate)
    train_encoder(recipe(steps=4, evaluate_every=1, ramp=0.5), material, tmp_path)
    assert [(entry["mean"], entry["eligible"]) for entry in read_curve(tmp_path)] == [
        (0.2, True), (0.9, False), (0.6, True), (0.7, True), (0.5, True),
    ]  # fmt: skip
    kept = read_best_evaluation(tmp_path)
    assert kept is not None
    assert (kept["step"], kept["mean"]) == (3, 0.7)


@pytest.mark.parametrize(("budget", "step"), [(20.0, 1), (8.0, 2), (1.0, 0)])
def test_a_budget_of_weights_decides_instead_of_the_ramp(
    recipe: Recipe,
    material: TrainingMaterial,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    budget: float,
    step: int,
) -> None:
    """Without any checkpoint in the budget, the best of all is kept and marked."""
    found = iter([(0.8, 30.0), (0.7, 15.0), (0.6, 7.0)])

    def evaluate(judged: object, documents: object, queries: object) -> tuple[dict[str, float], np.ndarray]:
        score, weights = next(found)
        figures = {"sparse": score, "bm25": 0.0, "hybrid": 0.0, "weights_a_document": weights, "flops": 1.0}
        return figures, np.zeros(1)

    monkeypatch.setattr("models.training.evaluation.evaluation_figures", evaluate)
    train_encoder(recipe(steps=2, evaluate_every=1, max_weights=budget), material, tmp_path)
    kept = read_best_evaluation(tmp_path)
    assert kept is not None
    assert (kept["step"], kept["eligible"]) == (step, step > 0)


@pytest.mark.parametrize(("query", "regulariser", "warned"), [
    ("learned", "idf_flops", True), ("idf", "idf_flops", True), ("none", "idf_flops", False), ("idf", "flops", False),
])  # fmt: skip
def test_a_recipe_with_idf_twice_is_warned_of(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    query: str, regulariser: str, *, warned: bool,
) -> None:  # fmt: skip
    encoder = {"passage_pieces": 16, "query_weighting": query, "regulariser": regulariser}
    train_encoder(recipe(steps=1, encoder=encoder), material, tmp_path)
    assert ("IDF is in the query weights and in the regulariser" in caplog.text) is warned


def test_an_encoder_is_written_before_its_line_of_the_curve(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path
) -> None:
    def killed(model: Any, directory: Path) -> None:
        raise Stopped

    evaluator = CurveEvaluator(material.judged, tmp_path, killed)
    with pytest.raises(Stopped):
        evaluator(build_encoder(recipe().start, recipe().encoder, material.idf), steps=0)
    assert read_curve(tmp_path) == []


def test_the_curve_has_each_step_once(recipe: Recipe, material: TrainingMaterial, tmp_path: Path) -> None:
    small = replace(material.judged[0], documents=material.judged[0].documents[:2], grades=[{0: 1}] * 12)
    encoder = build_encoder(recipe().start, recipe().encoder, material.idf)
    evaluator = CurveEvaluator([small], tmp_path, save_checkpoint)
    for step in (0, 50, 50):  # as after a kill between an evaluation and its checkpoint
        evaluator(encoder, steps=step)
    assert [entry["step"] for entry in read_curve(tmp_path)] == [0, 50]
    with (tmp_path / "curve.jsonl").open("a") as file:  # a line that a full disk cut off
        file.write('{"step": 1')
    evaluator(encoder, steps=100)
    assert [entry["step"] for entry in read_curve(tmp_path)] == [0, 50, 100]


def test_a_copy_that_fails_does_not_end_the_run(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy"

    def gone(entry: dict[str, Any]) -> None:
        shutil.rmtree(copy, ignore_errors=True)

    train_encoder(recipe(steps=2, evaluate_every=1), material, tmp_path / "out", copy_to=copy, evaluated=gone)
    assert [entry["step"] for entry in read_curve(tmp_path / "out")] == [0, 1, 2]
    assert "nothing was copied" in caplog.text


def test_an_encoder_without_trainable_parameters_is_evaluated_once(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path
) -> None:
    binary = {"document_weighting": "binary", "expansion": False, "regulariser": "none", "query_weighting": "idf"}
    train_encoder(recipe(encoder=binary | {"passage_pieces": 16}), material, tmp_path)
    assert [entry["step"] for entry in read_curve(tmp_path)] == [100]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    ordinary = ChunkedSpladeLoss.forward
    calls = 0

    def forward(self: ChunkedSpladeLoss, *arguments: Any) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        found = ordinary(self, *arguments)
        if calls == 61:
            first = next(iter(found))
            spoilt = found[first] * float("nan")
            # A finite loss with a NaN gradient.
            found[first] = spoilt if what == "loss" else found[first].detach() + (spoilt - spoilt.detach()).nan_to_num()
            if what == "gradient":
                found[first].register_hook(lambda gradient: gradient * float("nan"))
        return found

    monkeypatch.setattr(ChunkedSpladeLoss, "forward", forward)
    with pytest.raises(ConfigurationError, match=f"The {what} of step 61 is not finite") as caught:
        train_encoder(recipe(), material, tmp_path)
    assert caught.value.code == "training_diverged"
    assert "checkpoint-50" in str(caught.value)
    kept = last_checkpoint(tmp_path / CHECKPOINTS)
    assert kept is not None
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "best").values())


def test_training_in_parts_after_out_of_memory_gives_the_same_result(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No dropout: it draws other numbers if a batch is divided.
    short = recipe(steps=10, evaluate_every=10).changed(start=str(toy_start(tmp_path / "start", dropout=0.0)))
    roomy = train_encoder(short, material, tmp_path / "roomy")
    ordinary = ChunkedSpladeLoss.forward
    sizes: list[int] = []

    def forward(self: ChunkedSpladeLoss, features: Any, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        size = self.mini_batch_size if self.in_parts else len(labels)
        if size > 4:
            raise torch.OutOfMemoryError("no room for so many")
        sizes.append(size)
        return ordinary(self, features, labels)

    monkeypatch.setattr(ChunkedSpladeLoss, "forward", forward)
    narrow = train_encoder(short, material, tmp_path / "narrow")
    assert set(sizes) == {3}
    assert len(sizes) == 10
    for name, tensor in weights(roomy).items():
        # Adam makes full steps (10 x 0.003) even from gradients close to zero.
        torch.testing.assert_close(weights(narrow)[name], tensor, rtol=1e-3, atol=3e-3)


def no_room() -> torch.Tensor:
    """Allocate more memory than any machine has, to get the allocator's real error."""
    return torch.empty(2**60, dtype=torch.uint8)


def test_messages_of_allocators_are_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        no_room()
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_an_evaluation_halves_its_batch_when_memory_runs_out() -> None:
    sizes: list[int] = []

    def encode(texts: list[str], *, batch_size: int, **given: Any) -> torch.Tensor:
        sizes.append(batch_size)
        return no_room() if batch_size > 8 else torch.eye(len(texts)).to_sparse()

    assert encode_texts(encode, ["a", "b"]) == [{0: 1.0}, {1: 1.0}]
    assert sizes == [32, 16, 8]
    with pytest.raises(RuntimeError):
        encode_texts(lambda texts, **given: no_room(), ["a"])


def test_an_optimiser_out_of_memory_is_an_error(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *given: no_room())
    with pytest.raises(ConfigurationError, match="optimiser's state") as caught:
        train_encoder(recipe(steps=1), material, tmp_path)
    assert caught.value.code == "out_of_memory"


def test_out_of_memory_with_one_text_is_an_error(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: ChunkedSpladeLoss, *arguments: Any) -> torch.Tensor:
        return no_room()

    monkeypatch.setattr(ChunkedSpladeLoss, "forward", forward)
    with pytest.raises(ConfigurationError, match="passage_pieces") as caught:
        train_encoder(recipe(steps=1), material, tmp_path)
    assert caught.value.code == "out_of_memory"


def test_too_few_pairs_are_refused(recipe: Recipe, material: TrainingMaterial, tmp_path: Path) -> None:
    few = replace(material, pairs=material.pairs.take(np.arange(10)))
    with pytest.raises(ConfigurationError, match="There are 10 pairs") as caught:
        train_encoder(recipe(), few, tmp_path)
    assert caught.value.code == "too_few_pairs"


def test_too_few_links_for_one_step_are_refused(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a batch in an epoch, the trainer would end at once and return the start as the result."""
    weighed_down = replace(material, order=material.order[:15])
    with pytest.raises(ConfigurationError, match="There are 15 pairs"):
        train_encoder(recipe(), weighed_down, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigurationError, match="needs at least 36"):
        train_encoder(recipe(), replace(material, order=material.order[:35]), tmp_path)


def test_a_run_resumes_from_its_copy(
    recipe: Recipe, material: TrainingMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, copy = tmp_path / "lost", tmp_path / "copy"
    with monkeypatch.context() as patched:
        stop_after(patched, 70)
        with pytest.raises(Stopped):
            train_encoder(recipe(), material, lost, copy_to=copy)
    assert [entry["step"] for entry in read_curve(copy)] == [0, 50]
    assert weights(copy / "best").keys() == weights(lost / "best").keys()
    shutil.rmtree(lost)
    steps: list[int] = []
    train_encoder(recipe(), material, copy, report=lambda step, total, logs: steps.append(step))
    assert min(steps) > 50
    assert [entry["step"] for entry in read_curve(copy)] == [0, 50, 100]


def test_a_run_is_not_copied_into_itself(recipe: Recipe, material: TrainingMaterial, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="another disk") as caught:
        train_encoder(recipe(), material, tmp_path, copy_to=tmp_path)
    assert caught.value.code == "bad_copy"


def test_one_process_takes_one_device(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(training_arguments(recipe(), tmp_path, 0))
    monkeypatch.setattr(kind, "n_gpu", property(lambda self: self._n_gpu or 4))  # as on a machine with four GPUs
    arguments = training_arguments(recipe(), tmp_path, 0)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 12)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in float16")
def test_float16_needs_a_gpu(recipe: Recipe, material: TrainingMaterial, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="float16 needs a GPU") as caught:
        train_encoder(recipe(precision="float16"), material, tmp_path)
    assert caught.value.code == "bad_recipe"


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_every_precision_learns(recipe: Recipe, material: TrainingMaterial, tmp_path: Path, precision: str) -> None:
    train_encoder(recipe(precision=precision), material, tmp_path)
    assert read_curve(tmp_path)[-1]["mean"] > 0.6


def test_the_student_learns_the_distribution_of_the_teachers() -> None:
    queries = torch.eye(3, 5)
    passages = torch.rand(3, 5)
    scores = queries @ passages.T
    counted = torch.ones(3, 3)
    counted[0, 2] = 0
    loss = RankingLoss(0.0, distils=True)
    same = loss.compute_loss_from_embeddings([queries, passages], torch.stack([scores, counted, counted], dim=1))
    assert same["distillation"].item() == pytest.approx(0, abs=1e-6)
    # A score that does not count may have any value.
    spoilt = scores.clone()
    spoilt[0, 2] = 1e6
    again = loss.compute_loss_from_embeddings([queries, passages], torch.stack([spoilt, counted, counted], dim=1))
    assert again["distillation"].item() == pytest.approx(0, abs=1e-6)
    other = loss.compute_loss_from_embeddings([queries, passages], torch.stack([-scores, counted, counted], dim=1))
    by_hand = torch.nn.functional.kl_div(
        scores.masked_fill(counted == 0, -1e9).log_softmax(1),
        (-scores).masked_fill(counted == 0, -1e9).log_softmax(1),
        log_target=True,
        reduction="batchmean",
    )
    assert other["distillation"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_without_teachers_the_contrastive_weight_is_1() -> None:
    queries, passages, labels = torch.eye(3, 5), torch.rand(3, 5), torch.ones(3, 3, 3)
    alone = RankingLoss(0.3, distils=False).compute_loss_from_embeddings([queries, passages], labels)
    wanted = torch.nn.functional.cross_entropy(queries @ passages.T, torch.arange(3))
    assert alone["contrastive"].item() == pytest.approx(wanted.item())
    beside = RankingLoss(0.3, distils=True).compute_loss_from_embeddings([queries, passages], labels)
    assert beside["contrastive"].item() == pytest.approx(0.3 * wanted.item())
