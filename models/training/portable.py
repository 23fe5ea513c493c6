"""A SparseEncoder that is saved under the public names of sentence-transformers' own modules.

Our modules compute what their base classes compute, from the same parameters, only cheaper. A saved encoder names the
base classes, so it loads wherever sentence-transformers is installed, without this package and without remote code,
and a checkpoint of the trainer loads into a model that is being trained. See docs/decisions/0100.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentence_transformers import SparseEncoder
from sentence_transformers.util import fullname
from torch import nn

from models.training.idf import Weights
from models.training.recipe_encoder import EncoderRecipe
from services.errors import InvalidInput

PUBLIC = "sentence_transformers."


class InferenceFreeEncoder(SparseEncoder):
    """A model document side and a table query side, with what `save_checkpoint` needs beside the modules.

    `recipe`, `idf` (float32 [vocabulary] or None) and `tokenizer_json` (the start's file) are set by `build_encoder`;
    they are None when a saved one is loaded by its class.
    """

    recipe: EncoderRecipe | None = None
    idf: Weights | None = None
    tokenizer_json: bytes | None = None

    def save(self, path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Writes the layout of sentence-transformers, safetensors only.

        Raises InvalidInput (`not_finite_weights`) and writes nothing when a parameter is NaN or infinite: a checkpoint
        of such a model would replace a good one.
        """
        refuse_not_finite(self)
        super().save(path, *args, safe_serialization=True, **kwargs)
        names = {fullname(module): _public_name(module) for module in self.modules() if hasattr(module, "config_keys")}
        for file in (Path(path) / "modules.json", Path(path) / "router_config.json"):
            if file.is_file():
                content = json.loads(file.read_text(encoding="utf-8"))
                file.write_text(json.dumps(_renamed(content, names), indent=2) + "\n", encoding="utf-8")


def refuse_not_finite(model: nn.Module) -> None:
    """Raises InvalidInput (`not_finite_weights`) naming the first parameter that holds NaN or infinity."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise InvalidInput(
                "not_finite_weights",
                f"The parameter {name} holds NaN or infinity, so nothing was saved: go back to the last checkpoint and "
                "lower the learning rate, or train in float32.",
                parameter=name,
            )


def _public_name(module: nn.Module) -> str:
    """The nearest class of the module's line that sentence-transformers has itself."""
    for one in type(module).__mro__:
        if one.__module__.startswith(PUBLIC):
            return f"{one.__module__}.{one.__qualname__}"
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _renamed(content: Any, names: dict[str, str]) -> Any:
    if isinstance(content, dict):
        return {key: _renamed(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [_renamed(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content
