"""Finds the parts of an inference-free sparse encoder in a directory of one of the published layouts.

Two layouts are in use (sentence-transformers, `base/modules/router.py` and `sparse_encoder/modules/`):

- *Router*: modules.json names a Router; router_config.json gives each route's modules. The query route is one
  SparseStaticEmbedding (called IDF in early versions), the document route a masked-language Transformer (MLMTransformer
  in early versions) and a SpladePooling. A module lies in the folder of its id; the id "" is the directory itself, as
  in the published OpenSearch doc-v2 and doc-v3 encoders, whose weights were there before the other folders.
- *Plain*: config.json, model.safetensors and tokenizer.json beside idf.json (or query_token_weights.txt), as the
  OpenSearch encoders were published first. No file of it names the activation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.training.recipe_encoder import Activation
from services.errors import ConfigurationError

MODULES, ROUTER, PLAIN_TABLES = "modules.json", "router_config.json", ("idf.json", "query_token_weights.txt")
_QUERY_CLASSES, _MODEL_CLASSES = {"SparseStaticEmbedding", "IDF"}, {"Transformer", "MLMTransformer"}
# Their names are those of what comes before the last log1p.
_ACTIVATIONS: dict[str, Activation] = {"relu": "log1p_relu", "log1p_relu": "log1p_log1p_relu"}


@dataclass(frozen=True, slots=True)
class HubLayout:
    """Where the parts lie.

    `model` holds config.json and the weights, `tokenizers` are the document side's tokenizer.json and the query side's
    where it has one of its own, `table` is a JSON object or lines of piece and weight, or safetensors with the tensor
    `weight` [vocabulary]. `activation` is None where no file names it, `longest` where none limits the pieces.
    """

    model: Path
    tokenizers: tuple[Path, ...]
    table: Path
    activation: Activation | None
    longest: int | None


def is_hub_layout(directory: Path) -> bool:
    """Whether a directory is laid out as published encoders are; a query_weights.json makes it a checkpoint of ours."""
    plain = any((directory / name).is_file() for name in PLAIN_TABLES)
    ours = (directory / "query_weights.json").is_file()
    return (directory / MODULES).is_file() or (directory / ROUTER).is_file() or (plain and not ours)


def read_layout(directory: Path) -> HubLayout:
    """The parts of an encoder. Raises ConfigurationError: `hub_unsupported` for what is no inference-free sparse
    encoder of these layouts, `bad_hub_layout` for files that are missing or damaged."""
    if (directory / ROUTER).is_file():
        return _router_layout(directory)
    if (directory / MODULES).is_file():
        raise _unsupported(directory, f"it has no {ROUTER}, so queries go through the model as documents do")
    tables = [path for name in PLAIN_TABLES if (path := directory / name).is_file()]
    if not tables:
        raise ConfigurationError(
            "bad_hub_layout",
            f"{directory} holds neither {MODULES} nor {' or '.join(PLAIN_TABLES)}: it is no published sparse encoder.",
        )
    pooling = directory / "document_1_SpladePooling"
    activation = _activation(pooling) if pooling.is_dir() else None
    return HubLayout(directory, (_file(directory, "tokenizer.json"),), tables[0], activation, _longest(directory))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ConfigurationError (`bad_hub_layout`)."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError("bad_hub_layout", f"{path} cannot be read ({error}): fetch it again.") from None
    if not isinstance(found, dict):
        raise ConfigurationError("bad_hub_layout", f"{path} is no JSON object.")
    return found


def _router_layout(directory: Path) -> HubLayout:
    config = read_object(_file(directory, ROUTER))
    types, structure = config.get("types"), config.get("structure")
    if not isinstance(types, dict) or not isinstance(structure, dict):
        raise ConfigurationError("bad_hub_layout", f"{directory / ROUTER} lists no types or no structure.")
    queries, documents = (_route(directory, structure, types, name) for name in ("query", "document"))
    query_classes, document_classes = [kind for kind, _ in queries], [kind for kind, _ in documents]
    if len(queries) != 1 or query_classes[0] not in _QUERY_CLASSES:
        raise _unsupported(
            directory,
            f"its queries go through {', '.join(query_classes)}: only a table of weights needs no model there",
        )
    if len(documents) != 2 or document_classes[0] not in _MODEL_CLASSES or document_classes[1] != "SpladePooling":
        raise _unsupported(directory, f"its documents go through {', '.join(document_classes)}")
    _refuse_prompts(directory)
    query, model = queries[0][1], documents[0][1]
    _require_masked_head(model, document_classes[0])
    tokenizers = [_file(model, "tokenizer.json")]
    if (query / "tokenizer.json").is_file() and query != model:
        tokenizers.append(query / "tokenizer.json")
    return HubLayout(
        model, tuple(tokenizers), _static_table(directory, query), _activation(documents[1][1]), _longest(model)
    )


def _route(directory: Path, structure: dict[str, Any], types: dict[str, Any], name: str) -> list[tuple[str, Path]]:
    """Class name and folder of each module of a route."""
    ids = structure.get(name)
    if not isinstance(ids, list) or not all(isinstance(one, str) and isinstance(types.get(one), str) for one in ids):
        raise _unsupported(directory, f"{ROUTER} has no route {name!r}")
    for one in ids:
        if Path(one).is_absolute() or ".." in Path(one).parts:
            raise ConfigurationError("bad_hub_layout", f"{directory / ROUTER} names a folder outside: {one!r}.")
    return [(types[one].rpartition(".")[2], directory / one) for one in ids]


def _static_table(directory: Path, query: Path) -> Path:
    """The weights of a SparseStaticEmbedding: safetensors, or a JSON file that its config names."""
    config = read_object(query / "config.json") if (query / "config.json").is_file() else {}
    named = config.get("path")
    if isinstance(named, str) and named.endswith(".json"):
        # A path on the machine that saved it: only the name says something here.
        found = [place / Path(named).name for place in (query, directory)]
        for path in found:
            if path.is_file():
                return path
        raise ConfigurationError("bad_hub_layout", f"{found[0]} is missing, and {query / 'config.json'} names it.")
    return require_safetensors(query)


def require_safetensors(folder: Path) -> Path:
    """model.safetensors of a folder. Raises ConfigurationError: `pickle_refused`, `bad_hub_layout`."""
    path = folder / "model.safetensors"
    if path.is_file():
        return path
    pickles = sorted(one.name for one in folder.glob("*.bin"))
    if pickles:
        raise ConfigurationError(
            "pickle_refused",
            f"{folder} holds its weights only as a pickle ({pickles[0]}), which runs code when it is read: take a "
            "revision with model.safetensors, or save the model again with safe_serialization on a machine that you "
            "can lose.",
        )
    if (folder / "model.safetensors.index.json").is_file():
        raise ConfigurationError(
            "hub_unsupported", f"{folder}: weights in several files are not read; save the model again as one file."
        )
    raise ConfigurationError("bad_hub_layout", f"{path} is missing: fetch the directory again.")


def _activation(pooling: Path) -> Activation:
    config = read_object(_file(pooling, "config.json"))
    name, strategy = config.get("activation_function", "relu"), config.get("pooling_strategy", "max")
    if strategy != "max":
        raise _unsupported(pooling, f"it pools by {strategy!r}, and only the maximum over positions is exported")
    if name not in _ACTIVATIONS:
        raise _unsupported(pooling, f"its activation is {name!r}; known are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _require_masked_head(model: Path, kind: str) -> None:
    path = model / "sentence_bert_config.json"
    default = "fill-mask" if kind == "MLMTransformer" else "feature-extraction"
    task = (read_object(path) if path.is_file() else {}).get("transformer_task", default)
    if task != "fill-mask":
        raise _unsupported(model, f"its Transformer is made for {task!r}, not for 'fill-mask'")


def _refuse_prompts(directory: Path) -> None:
    path = directory / "config_sentence_transformers.json"
    prompts = (read_object(path) if path.is_file() else {}).get("prompts") or {}
    used = [name for name, prompt in prompts.items() if prompt]
    if used:
        raise _unsupported(directory, f"it puts a prompt before every text ({', '.join(used)}), which we do not")


def _longest(model: Path) -> int | None:
    """The longest input that the files name, special pieces included."""
    limits = []
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        value = read_object(model / name).get(key) if (model / name).is_file() else None
        # transformers writes 1e30 for "no limit"
        if isinstance(value, int | float) and 0 < value < 1e6:
            limits.append(int(value))
    return min(limits, default=None)


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if path.is_file():
        return path
    hint = ""
    if name == "tokenizer.json" and (folder / "vocab.txt").is_file():
        hint = " (vocab.txt alone does not say how texts are normalised: save the tokeniser with transformers)"
    raise ConfigurationError("bad_hub_layout", f"{path} is missing{hint}: fetch the directory again.")


def _unsupported(place: Path, what: str) -> ConfigurationError:
    return ConfigurationError("hub_unsupported", f"{place} cannot be made an encoder of ours: {what}.")
