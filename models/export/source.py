"""What can be exported: a checkpoint directory, a published encoder's directory, or its name on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.hub.conversion import convert, stated_licence
from models.hub.fetch import fetch, is_hub_name
from models.hub.layout import is_hub_layout, require_safetensors
from models.training.recipe_encoder import Activation, EncoderRecipe
from services.errors import ConfigurationError
from services.manifest import as_path, has_manifest

CHECKPOINT = ("config.json", "tokenizer.json", "query_weights.json")


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint directory, the longest input that its files name (None: no limit), what is known of its origin."""

    checkpoint: Path
    longest: int | None
    origin: dict[str, Any]


def open_source(source: str, work: Path, activation: Activation | None = None) -> Source:
    """The checkpoint to export. A published encoder's is made in the empty directory `work`.

    `activation` is for published encoders that name none. Raises ConfigurationError: `unknown_source`,
    `missing_checkpoint_file`, `checkpoint_unsupported`, `pickle_refused`; and what `models.hub.conversion.convert` and
    `models.hub.fetch.fetch` raise.
    """
    directory = fetch(source) if is_hub_name(source) else as_path(source)
    if not directory.is_dir():
        raise ConfigurationError(
            "unknown_source",
            f"There is no directory {source!r}. What can be exported: a checkpoint directory, the directory of a "
            "published sparse encoder, or a hub name (owner/name or owner/name@revision).",
        )
    if has_manifest(directory):
        raise ConfigurationError(
            "unknown_source", f"{directory} is a model directory already: export its checkpoint instead."
        )
    if is_hub_layout(directory):
        longest = convert(directory, work, activation)
        origin = {
            "licence": stated_licence(directory) or "unstated",
            "training": {"source": source if is_hub_name(source) else directory.resolve().name},
        }
        return Source(work, longest, origin)
    recipe = EncoderRecipe.read(directory)
    if recipe is not None and recipe.document_weighting == "binary":
        raise ConfigurationError(
            "checkpoint_unsupported", f"{directory} weighs documents by binary presence: there is no model to export."
        )
    missing = [name for name in CHECKPOINT if not (directory / name).is_file()]
    if missing:
        raise ConfigurationError(
            "missing_checkpoint_file",
            f"{directory} lacks {', '.join(missing)}: a checkpoint holds {', '.join(CHECKPOINT)} and "
            "model.safetensors.",
        )
    require_safetensors(directory)
    if activation is not None:
        raise ConfigurationError(
            "unknown_activation", f"{directory} is a checkpoint of ours: its recipe.json names the activation."
        )
    return Source(directory, None, {"licence": "unstated"})
