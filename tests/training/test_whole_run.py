"""The pipeline: one command at a time in a directory, one start for each run, and an encoder on several devices."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from models.export.export import ExportOptions, export_encoder
from models.progress import SilentReporter
from models.registry import load_encoder
from models.training import pipeline
from models.training.ablation import ablation_variants
from models.training.evaluation import read_curve
from models.training.pipeline import run_ablation, run_recipe
from models.training.recipe import TrainingRecipe, parse_recipe
from models.training.trainer import training_diverged
from services.errors import ConfigurationError
from tests.training.toy_pairs import toy_files, toy_recipe, toy_start

ROOT = Path(__file__).resolve().parents[2]
# Both devices print their gradients, which are equal only after averaging.
SCRIPT = """
import json, os, sys
from pathlib import Path
from models.training.recipe import parse_recipe
from models.progress import SilentReporter
from models.training.pipeline import run_recipe

class Norms(SilentReporter):
    seen = []
    def trained(self, step, steps, logs):
        if "grad_norm" in logs:
            self.seen.append(float(logs["grad_norm"]))

out = Path(sys.argv[2])
run_recipe(parse_recipe(json.loads(sys.argv[1]), "toy"), out, name="made", show=Norms())
(out / f"norms-{os.environ['RANK']}.json").write_text(json.dumps(Norms.seen))
"""


class Lines(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def report(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("toy")
    return toy_start(root / "start"), toy_files(root / "files")


def test_two_commands_cannot_share_a_directory(toy: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = parse_recipe(toy_recipe(*toy), "toy")
    with FileLock(tmp_path / "run.lock"):
        for command in (run_recipe, run_ablation):
            with pytest.raises(ConfigurationError, match="Another process") as caught:
                command(recipe, tmp_path, **({"name": "x"} if command is run_recipe else {}))
            assert caught.value.code == "run_in_progress"


def test_binary_weights_are_refused_for_an_encoder(toy: tuple[Path, Path], tmp_path: Path) -> None:
    binary = {"document_weighting": "binary", "expansion": False, "regulariser": "none"}
    with pytest.raises(ConfigurationError, match="ablation"):
        run_recipe(parse_recipe(toy_recipe(*toy, encoder=binary), "toy"), tmp_path, name="x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["best", "checkpoints", "vectors"])
def test_an_encoder_cannot_have_the_name_of_a_run_directory(toy: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="another --name") as caught:
        run_recipe(parse_recipe(toy_recipe(*toy), "toy"), tmp_path / name)
    assert caught.value.code == "bad_encoder_name"
    assert not (tmp_path / name).exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in float16")
def test_an_unavailable_precision_is_refused_first(toy: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = parse_recipe(toy_recipe(*toy, precision="float16"), "toy")
    for command in (run_recipe, run_ablation):
        with pytest.raises(ConfigurationError, match="float16 needs a GPU"):
            command(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_diverged_variant_loses_only_its_row(
    toy: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = dict.fromkeys(("sparse", "bm25", "hybrid", "weights_a_document", "flops"), 0.5)

    def train(recipe: TrainingRecipe, material: Any, out: Path, **given: Any) -> None:
        if recipe.encoder.regulariser == "none":
            raise training_diverged("loss", 3, "There was no checkpoint yet.")
        out.mkdir(parents=True)
        entry = {"step": recipe.steps, "seconds": 1.0, "mean": 0.5, "collections": {"toy": figures}}
        (out / "curve.jsonl").write_text(json.dumps(entry) + "\n")

    monkeypatch.setattr(pipeline, "train_encoder", train)
    chosen = ["regulariser none", "regulariser l1"]
    assert [row.name for row in run_ablation(parse_recipe(toy_recipe(*toy), "toy"), tmp_path, chosen)] == [
        "whole",
        "regulariser l1",
    ]


def test_another_start_is_another_run(toy: tuple[Path, Path], tmp_path: Path) -> None:
    export_encoder(ExportOptions(str(toy[0]), tmp_path / "one", window=16, overlap=2))
    export_encoder(ExportOptions(str(toy[0]), tmp_path / "two", window=16, overlap=2, precision="fp32"))
    changes: dict[str, Any] = {"steps": 1, "evaluate_every": 1, "learning_rate": 1e-9, "table_learning_rate": 1e-9}
    show = Lines()
    made = run_recipe(
        parse_recipe(toy_recipe(tmp_path / "one", toy[1], **changes), "toy"), tmp_path / "out", name="x", show=show
    )
    assert "No evaluation was better than that of the start: the start is exported." in show.said
    training = json.loads((made / "manifest.json").read_text())["training"]
    assert training["recipe"]["start"] == str(tmp_path / "one")
    with pytest.raises(ConfigurationError, match="another recipe"):
        run_recipe(parse_recipe(toy_recipe(tmp_path / "two", toy[1], **changes), "toy"), tmp_path / "out", name="x")


def test_two_devices_average_gradients_and_one_writes(toy: tuple[Path, Path], tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    # A batch has several backward passes; their gradients must be averaged once.
    recipe = toy_recipe(*toy, steps=4, evaluate_every=2, batch=8, mini_batch=3)
    found = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
            "--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
            script, json.dumps(recipe), tmp_path / "out",
        ],
        cwd=ROOT, text=True, capture_output=True, timeout=240, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    norms = [json.loads((tmp_path / "out" / f"norms-{rank}.json").read_text()) for rank in (0, 1)]
    assert norms[0]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert [entry["step"] for entry in read_curve(tmp_path / "out")] == [0, 2, 4]
    assert load_encoder(str(tmp_path / "out" / "made")).manifest.name == "made"


def test_a_budget_that_no_checkpoint_meets_exports_nothing(toy: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = parse_recipe(toy_recipe(*toy, steps=1, evaluate_every=1, max_weights=0.001), "toy")
    with pytest.raises(ConfigurationError, match=r"No checkpoint has at most 0\.001 weights.*too_dense"):
        run_recipe(recipe, tmp_path / "out", name="x")
    assert not (tmp_path / "out" / "x").exists()
    assert (tmp_path / "out" / "best").is_dir(), "the work is kept"


def test_variants_without_negatives_have_the_same_penalty(toy: tuple[Path, Path]) -> None:
    recipe = parse_recipe(toy_recipe(*toy, negatives={"sources": ["bm25"], "count": 3}, regulariser_weight=0.01), "toy")
    (_, bare) = ablation_variants(recipe, ["no hard negatives"])
    assert bare.recipe.regulariser_weight == pytest.approx(0.04)
