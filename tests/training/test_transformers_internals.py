"""Private names of transformers that our trainers replace, as `tests/unit/services/test_library_internals.py` does."""

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import transformers
from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
# Names that the trainers replace, with the feature that needs each.
USES = {
    "_save": "checkpoints hold the whole model, and every device writes them",
    "_save_checkpoint": "a full disk leaves half of a checkpoint",
    "_load_from_checkpoint": "a run does not continue from its adapters",
}


@pytest.mark.parametrize(("name", "broken"), USES.items())
def test_the_trainer_calls_what_our_trainers_replace(name: str, broken: str) -> None:
    source = inspect.getsource(transformers.Trainer)
    assert f"def {name}(" in source and f"self.{name}(" in source, (
        f"transformers {version('transformers')}: Trainer.{name} is gone: {broken}."
    )


def test_the_arguments_have_the_number_of_devices() -> None:
    assert "self._n_gpu" in inspect.getsource(transformers.TrainingArguments.n_gpu.fget), (
        f"transformers {version('transformers')}: TrainingArguments._n_gpu is gone: several GPUs multiply the batch."
    )


@pytest.mark.parametrize("extra", ["train", "gpu"])
def test_transformers_has_an_upper_bound(extra: str) -> None:
    lines = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"][extra]
    (found,) = (line for line in map(Requirement, lines) if line.name == "transformers")
    assert any(part.operator == "<" for part in found.specifier) and version("transformers") in found.specifier
