"""From the best checkpoint of a run to a model directory that workers and the API load."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.export.order import Order, carry_out
from models.training.curve import BEST, EVALUATION
from models.training.recipe import TrainingRecipe
from services.errors import ConfigurationError
from services.manifest import NAME

if TYPE_CHECKING:
    from models.training.run import Material

# Directories beside the encoder in that of a run.
_OF_THE_RUN = (BEST, "checkpoints", "vectors", "questions")
PACKAGES = ("torch", "transformers", "sentence-transformers", "onnx")


def encoder_name(name: str) -> str:
    """The name as a manifest takes it. Raises ConfigurationError (`bad_encoder_name`)."""
    if not re.fullmatch(NAME, name):
        raise ConfigurationError(
            "bad_encoder_name",
            f"{name!r} cannot be an encoder's name: small letters, digits, dots, dashes and underscores, at most 64. "
            "Say --name.",
        )
    if name in _OF_THE_RUN:
        raise ConfigurationError(
            "bad_encoder_name", f"{name} is what a run calls a directory of its own beside the encoder: say --name."
        )
    return name


def package(
    checkpoint: Path,
    out: Path,
    recipe: TrainingRecipe,
    material: Material,
    curve: Sequence[dict[str, Any]],
    record: dict[str, Any],
) -> Path:
    """Exports int8 to `out`, whose name is the encoder's, with a manifest that says how it was trained."""
    best = json.loads((checkpoint / EVALUATION).read_bytes())
    said = {
        "licence": recipe.licence,
        "regulariser": recipe.encoder.regulariser,
        "training": {
            "recipe": json.loads(recipe.model_dump_json()),
            "pairs": material.pairs.counts(),
            "first": _figures(curve[0]),
            "best": _figures(best),
            "seconds": curve[-1]["seconds"],
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "versions": {package: version(package) for package in PACKAGES},
        }
        | record,
    }
    path = checkpoint.parent / "record.json"
    path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    carry_out(Order(str(checkpoint), out, record=path, replace=True))
    return out


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    return {"step": entry["step"], "ndcg_at_10": entry["mean"], "collections": entry["collections"]}
