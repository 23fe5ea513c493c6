"""The form of a dense encoder in a directory: pooling, prefixes and length, read from the files beside its model.

A directory has a `dense.json` of ours (`services.encoders.catalogue`), or the files of sentence-transformers:
1_Pooling/config.json, and, where present, config_sentence_transformers.json (prompts), sentence_bert_config.json
(length) and modules.json. Nothing is guessed: mean pooling of a model that was trained with its first position, or a
model without its prefix, gives vectors that look valid and rank badly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from services.encoders.catalogue import DENSE_MANIFEST_FILE, read_dense_directory
from services.encoders.manifest import DenseForm, Pooling
from services.errors import ConfigurationError

POOLING_FILE: Final = "1_Pooling/config.json"
_PROMPTS_FILE: Final = "config_sentence_transformers.json"
_LENGTH_FILE: Final = "sentence_bert_config.json"
_MODULES_FILE: Final = "modules.json"
# The names of sentence-transformers' modes that have a counterpart here.
_POOLING: Final = {"mean": Pooling.mean, "cls": Pooling.first}
# Files of sentence-transformers before 6.0 have a member for each mode.
_FORMER_MODES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Vectors are normalised here as well, so Normalize adds nothing.
_MODULES: Final = ("Transformer", "Pooling", "Normalize")
_QUERY_PROMPTS: Final = ("query",)
# The names that sentence-transformers' encode_document looks for, in its order.
_PASSAGE_PROMPTS: Final = ("document", "passage", "corpus")


def read_dense_form(directory: Path) -> DenseForm:
    """Return the form that the files of a directory state.

    Raises ConfigurationError: `no_dense_form` for a directory without dense.json and 1_Pooling/config.json, and
    `bad_dense_encoder` for a form that `models.dense` does not compute, or for a damaged file.
    """
    if (directory / DENSE_MANIFEST_FILE).is_file():
        return read_dense_directory(directory).form
    if not (directory / POOLING_FILE).is_file():
        raise ConfigurationError(
            "no_dense_form",
            f"{directory} does not say how its vectors are made: it needs a {DENSE_MANIFEST_FILE} "
            f"(docs/configuration.md), or {POOLING_FILE} as sentence-transformers writes it.",
        )
    _require_known_modules(directory)
    pooling_config = _read_object(directory / POOLING_FILE)
    prompts = _read_object(directory / _PROMPTS_FILE) if (directory / _PROMPTS_FILE).is_file() else {}
    query, passage = _prompt(prompts, _QUERY_PROMPTS), _prompt(prompts, _PASSAGE_PROMPTS)
    if (query or passage) and pooling_config.get("include_prompt") is False:
        raise ConfigurationError(
            "bad_dense_encoder",
            f"{directory / POOLING_FILE} leaves the prompt out of the mean, which is not supported.",
        )
    return DenseForm(pooling=_pooling(directory, pooling_config), query_prefix=query, passage_prefix=passage).cut(
        _read_length(directory)
    )


def _pooling(directory: Path, config: Mapping[str, Any]) -> Pooling:
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [name for member, name in _FORMER_MODES.items() if config.get(member) is True]
    else:
        modes = mode if isinstance(mode, list) else [mode]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in _POOLING:
        shown = " + ".join(map(str, modes)) or "no mode"
        raise ConfigurationError(
            "bad_dense_encoder",
            f"{directory / POOLING_FILE} has the pooling {shown}; sparsewell computes {' or '.join(_POOLING)}.",
        )
    return _POOLING[modes[0]]


def _prompt(config: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first prompt of these names, else the default prompt, else no text."""
    prompts = config.get("prompts")
    if not isinstance(prompts, dict):
        return ""
    for name in (*names, config.get("default_prompt_name")):
        if isinstance(name, str) and isinstance(prompts.get(name), str):
            return str(prompts[name])
    return ""


def _read_length(directory: Path) -> int | None:
    """Return the maximum number of pieces, None where no file states it."""
    path = directory / _LENGTH_FILE
    length = _read_object(path).get("max_seq_length") if path.is_file() else None
    return length if isinstance(length, int) and not isinstance(length, bool) and length >= 3 else None


def _require_known_modules(directory: Path) -> None:
    """Refuse modules after the pooling that the ONNX graph of the Transformer does not have, such as Dense."""
    path = directory / _MODULES_FILE
    if not path.is_file():
        return
    modules = _read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ConfigurationError("bad_dense_encoder", f"{path} cannot be used: it is not a list of modules.")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if unknown := [kind for kind in kinds if kind not in _MODULES]:
        raise ConfigurationError(
            "bad_dense_encoder",
            f"{path} has the module {unknown[0]}; a dense encoder here is a Transformer, Pooling and Normalize.",
        )


def _read_object(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    if not isinstance(content, dict):
        raise ConfigurationError("bad_dense_encoder", f"{path} cannot be used: it is not a JSON object.")
    return content


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError("bad_dense_encoder", f"{path} cannot be used: {error}.") from None
