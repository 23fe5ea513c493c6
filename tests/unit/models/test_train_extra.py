"""The train extra is installed completely or not at all; otherwise tests/training would be skipped silently."""

import importlib.util
import subprocess
import sys

import pytest


def test_the_train_extra_is_installed_whole_or_not_at_all() -> None:
    names = ("torch", "sentence_transformers", "peft", "gguf", "datasets", "accelerate")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if len(missing) == len(names):
        pytest.skip("tests/training needs the train extra: make setup-train installs it (7 GB)")
    assert not missing


# Unit tests and commands import these modules without the extra: a fresh machine's `make test` installs no torch.
WITHOUT_TORCH = (
    "cli.relevance.live", "models.training.batches", "models.chapters.training_data", "models.training.consistency",
    "models.training.mining", "models.training.own.questions", "models.training.recipe",
)  # fmt: skip
BLOCKED = """
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "sentence_transformers", "transformers", "datasets"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_recipes_pairs_and_candidates_need_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED, *WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_block_works() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "models.training.train"], capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError" in done.stderr
