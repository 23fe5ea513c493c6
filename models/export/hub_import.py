"""Import of published inference-free sparse encoders: layouts on the hub, and their conversion to a checkpoint.

Two layouts are in use (sentence-transformers, `base/modules/router.py` and `sparse_encoder/modules/`):

- *Router*: modules.json names a Router, and router_config.json the modules of each route. The query route is one
  SparseStaticEmbedding (IDF in early versions). The document route is a masked-language Transformer (MLMTransformer in
  early versions) and a SpladePooling. A module lies in the folder of its id; the id "" is the directory itself, as in
  the published OpenSearch doc-v2 and doc-v3 encoders, whose weights are older than the other folders.
- *Plain*: config.json, model.safetensors and tokenizer.json beside idf.json (or query_token_weights.txt), as OpenSearch
  first published its encoders. No file names the activation.

`read_layout` finds the parts, and `convert_to_checkpoint` writes the checkpoint for the exporter (docs/decisions/0131).
Pickles and remote code are refused.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from models.export.package import read_vocabulary
from models.training.recipe import Activation, EncoderRecipe
from services.encoders.query_table import read_query_weights
from services.errors import ConfigurationError

MODULES, ROUTER, PLAIN_TABLES = "modules.json", "router_config.json", ("idf.json", "query_token_weights.txt")
_QUERY_CLASSES, _MODEL_CLASSES = {"SparseStaticEmbedding", "IDF"}, {"Transformer", "MLMTransformer"}
# sentence-transformers names the function before the last log1p.
_ACTIVATIONS: dict[str, Activation] = {"relu": "log1p_relu", "log1p_relu": "log1p_log1p_relu"}
_DROPPED_MEMBERS = ("version", "truncation", "padding", "post_processor", "decoder")
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


def convert_to_checkpoint(directory: Path, checkpoint: Path, activation: Activation | None = None) -> int | None:
    """Write config.json, model.safetensors (a link), tokenizer.json, query_weights.json and recipe.json.

    `activation` is for directories in which no file names it; it must not contradict a file. Return the longest input
    that the files name, special pieces included. Raises ConfigurationError: the errors of `read_layout`,
    `remote_code_refused`, `pickle_refused`, `unknown_activation`, `bad_query_table`, `checkpoint_unsupported`.
    """
    layout = read_layout(directory)
    config = read_json_object(layout.model / "config.json")
    _refuse_code(layout.model, config)
    weights = require_safetensors(layout.model)
    recipe = EncoderRecipe(activation=_choose_activation(directory, layout, activation), regulariser="flops")
    tokenizer = require_one_tokenizer(layout)
    vocabulary = read_vocabulary(tokenizer)
    table = read_published_table(layout.table, vocabulary)
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (checkpoint / "model.safetensors").symlink_to(weights.resolve())
    (checkpoint / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    (checkpoint / "query_weights.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    recipe.write(checkpoint)
    return layout.longest


def read_licence(directory: Path) -> str | None:
    """Return the licence in the front matter of a repository's README.md."""
    try:
        text = (directory / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    match = _LICENCE.search(head)
    return match[1] if match else None


def _refuse_code(folder: Path, config: dict[str, Any]) -> None:
    code = config.get("auto_map")
    if code:
        named = ", ".join(sorted(map(str, code.values()))) if isinstance(code, dict) else str(code)
        raise ConfigurationError(
            "remote_code_refused",
            f"{folder / 'config.json'} needs code of its own ({named}), and sparsewell never runs a model's code: take "
            "an encoder whose model is part of transformers (in the OpenSearch family, doc-v3-distill instead of "
            "doc-v3-gte).",
        )


def _choose_activation(directory: Path, layout: HubLayout, requested: Activation | None) -> Activation:
    if layout.activation is None and requested is None:
        raise ConfigurationError(
            "unknown_activation",
            f"No file of {directory} names the activation: give --activation log1p_relu (OpenSearch doc-v1 and doc-v2) "
            "or log1p_log1p_relu (doc-v3).",
        )
    if layout.activation is not None and requested not in {None, layout.activation}:
        raise ConfigurationError(
            "unknown_activation",
            f"{directory} names the activation {layout.activation}, not {requested}: leave --activation out.",
        )
    return layout.activation or requested or "log1p_relu"


@dataclass(frozen=True, slots=True)
class HubLayout:
    """Parts of a published encoder.

    `model` holds config.json and the weights. `tokenizers` are the tokenizer.json of the document side, and of the
    query side if it has its own. `table` is a JSON object, lines of piece and weight, or safetensors with the tensor
    `weight` [vocabulary]. `activation` is None where no file names it, `longest` where no file limits the input.
    """

    model: Path
    tokenizers: tuple[Path, ...]
    table: Path
    activation: Activation | None
    longest: int | None


def is_hub_layout(directory: Path) -> bool:
    """Tell whether a directory has a published layout; a query_weights.json makes it a sparsewell checkpoint."""
    published = any((directory / name).is_file() for name in (MODULES, ROUTER, *PLAIN_TABLES))
    return published and not (directory / "query_weights.json").is_file()


def read_layout(directory: Path) -> HubLayout:
    """Find the parts of an encoder.

    Raises ConfigurationError: `hub_unsupported` for models other than inference-free sparse encoders in these layouts,
    `bad_hub_layout` for missing or damaged files.
    """
    if (directory / ROUTER).is_file():
        return _read_router_layout(directory)
    if (directory / MODULES).is_file():
        raise _unsupported_layout(directory, f"it has no {ROUTER}, so its model also encodes queries")
    tables = [path for name in PLAIN_TABLES if (path := directory / name).is_file()]
    if not tables:
        raise ConfigurationError(
            "bad_hub_layout",
            f"{directory} holds neither {MODULES} nor {' or '.join(PLAIN_TABLES)}: it is not a published encoder.",
        )
    pooling = directory / "document_1_SpladePooling"
    activation = _read_activation(pooling) if pooling.is_dir() else None
    return HubLayout(
        directory, (_require_file(directory, "tokenizer.json"),), tables[0], activation, _max_positions(directory)
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ConfigurationError (`bad_hub_layout`)."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError("bad_hub_layout", f"{path} cannot be read ({error}): fetch it again.") from None
    if not isinstance(content, dict):
        raise ConfigurationError("bad_hub_layout", f"{path} is not a JSON object.")
    return content


def _read_router_layout(directory: Path) -> HubLayout:
    config = read_json_object(_require_file(directory, ROUTER))
    types, structure = config.get("types"), config.get("structure")
    if not isinstance(types, dict) or not isinstance(structure, dict):
        raise ConfigurationError("bad_hub_layout", f"{directory / ROUTER} has no types or no structure.")
    queries, documents = (_read_route(directory, structure, types, name) for name in ("query", "document"))
    query_classes, document_classes = [kind for kind, _ in queries], [kind for kind, _ in documents]
    if len(queries) != 1 or query_classes[0] not in _QUERY_CLASSES:
        raise _unsupported_layout(
            directory,
            f"its queries go through {', '.join(query_classes)}; only a table of weights needs no model",
        )
    if len(documents) != 2 or document_classes[0] not in _MODEL_CLASSES or document_classes[1] != "SpladePooling":
        raise _unsupported_layout(directory, f"its documents go through {', '.join(document_classes)}")
    _refuse_prompts(directory)
    query, model = queries[0][1], documents[0][1]
    _require_masked_head(model, document_classes[0])
    tokenizers = [_require_file(model, "tokenizer.json")]
    if (query / "tokenizer.json").is_file() and query != model:
        tokenizers.append(query / "tokenizer.json")
    return HubLayout(
        model,
        tuple(tokenizers),
        _find_static_table(directory, query),
        _read_activation(documents[1][1]),
        _max_positions(model),
    )


def _read_route(directory: Path, structure: dict[str, Any], types: dict[str, Any], name: str) -> list[tuple[str, Path]]:
    """Return class name and folder of each module of a route."""
    ids = structure.get(name)
    if not isinstance(ids, list) or not all(isinstance(key, str) and isinstance(types.get(key), str) for key in ids):
        raise _unsupported_layout(directory, f"{ROUTER} has no route {name!r}")
    for key in ids:
        if Path(key).is_absolute() or ".." in Path(key).parts:
            raise ConfigurationError("bad_hub_layout", f"{directory / ROUTER} names a folder outside: {key!r}.")
    return [(types[key].rpartition(".")[2], directory / key) for key in ids]


def _find_static_table(directory: Path, query: Path) -> Path:
    """Find the weights of a SparseStaticEmbedding: safetensors, or a JSON file that its config names."""
    config = read_json_object(query / "config.json") if (query / "config.json").is_file() else {}
    named = config.get("path")
    if isinstance(named, str) and named.endswith(".json"):
        # The path is of the machine that saved the encoder; only its name counts here.
        candidates = [folder / Path(named).name for folder in (query, directory)]
        for path in candidates:
            if path.is_file():
                return path
        raise ConfigurationError("bad_hub_layout", f"{query / 'config.json'} names {candidates[0]}, which is missing.")
    return require_safetensors(query)


def require_safetensors(folder: Path) -> Path:
    """Return model.safetensors of a folder. Raises ConfigurationError: `pickle_refused`, `bad_hub_layout`,
    `hub_unsupported`.
    """
    path = folder / "model.safetensors"
    if path.is_file():
        return path
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        raise ConfigurationError(
            "pickle_refused",
            f"{folder} has its weights only as a pickle ({pickles[0]}), which runs code when it is read: take a "
            "revision with model.safetensors, or save the model again with safe_serialization on a machine that you "
            "can lose.",
        )
    if (folder / "model.safetensors.index.json").is_file():
        raise ConfigurationError(
            "hub_unsupported", f"{folder}: weights in several files are not supported; save the model as one file."
        )
    raise ConfigurationError("bad_hub_layout", f"{path} is missing: fetch the directory again.")


def _read_activation(pooling: Path) -> Activation:
    config = read_json_object(_require_file(pooling, "config.json"))
    name, strategy = config.get("activation_function", "relu"), config.get("pooling_strategy", "max")
    if strategy != "max":
        raise _unsupported_layout(pooling, f"it pools by {strategy!r}; only the maximum over positions is supported")
    if name not in _ACTIVATIONS:
        raise _unsupported_layout(pooling, f"its activation is {name!r}; supported are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _require_masked_head(model: Path, kind: str) -> None:
    path = model / "sentence_bert_config.json"
    default = "fill-mask" if kind == "MLMTransformer" else "feature-extraction"
    task = (read_json_object(path) if path.is_file() else {}).get("transformer_task", default)
    if task != "fill-mask":
        raise _unsupported_layout(model, f"its Transformer has the task {task!r}, not 'fill-mask'")


def _refuse_prompts(directory: Path) -> None:
    path = directory / "config_sentence_transformers.json"
    prompts = (read_json_object(path) if path.is_file() else {}).get("prompts") or {}
    used = [name for name, prompt in prompts.items() if prompt]
    if used:
        raise _unsupported_layout(directory, f"it puts a prompt before every text ({', '.join(used)})")


def _max_positions(model: Path) -> int | None:
    """Return the longest input that the files name, special pieces included."""
    limits = []
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        value = read_json_object(model / name).get(key) if (model / name).is_file() else None
        # transformers writes 1e30 for "no limit"
        if isinstance(value, int | float) and 0 < value < 1e6:
            limits.append(int(value))
    return min(limits, default=None)


def _require_file(folder: Path, name: str) -> Path:
    path = folder / name
    if path.is_file():
        return path
    hint = ""
    if name == "tokenizer.json" and (folder / "vocab.txt").is_file():
        hint = " (vocab.txt alone does not say how texts are normalised: save the tokeniser with transformers)"
    raise ConfigurationError("bad_hub_layout", f"{path} is missing{hint}: fetch the directory again.")


def _unsupported_layout(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError("hub_unsupported", f"{path} cannot be imported: {reason}.")


def require_one_tokenizer(layout: HubLayout) -> Path:
    """Return the tokeniser of both sides; raise ConfigurationError (`hub_unsupported`) when they differ.

    Truncation, padding, special pieces and decoding may differ, because they are not used.
    """
    contents = [read_json_object(path) | dict.fromkeys(_DROPPED_MEMBERS) for path in layout.tokenizers]
    if any(content != contents[0] for content in contents):
        raise ConfigurationError(
            "hub_unsupported",
            f"{layout.tokenizers[0]} and {layout.tokenizers[1]} differ: queries and documents would have different "
            "pieces.",
        )
    return layout.tokenizers[0]


def read_published_table(path: Path, vocabulary: dict[str, int]) -> dict[str, float]:
    """Read piece to weight from a table in any published form. Raises ConfigurationError (`bad_query_table`)."""
    if path.suffix == ".safetensors":
        table = _read_tensor_table(path, vocabulary)
    elif path.suffix == ".json":
        table = read_query_weights(path)
    else:
        table = _read_line_table(path)
    unknown = [piece for piece in table if piece not in vocabulary]
    if unknown:
        raise ConfigurationError(
            "bad_query_table",
            f"{path} weighs {len(unknown):,} pieces that the tokeniser does not have, for example {unknown[0]!r}: it "
            "belongs to another model.",
        )
    return table


def _read_tensor_table(path: Path, vocabulary: dict[str, int]) -> dict[str, float]:
    try:
        weights = load_file(path)["weight"].astype(np.float64)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            "bad_query_table", f"{path} holds no readable tensor `weight` ({error}): fetch it again."
        ) from None
    if weights.ndim != 1 or len(weights) <= max(vocabulary.values()):
        raise ConfigurationError(
            "bad_query_table",
            f"{path} has a table of the shape {weights.shape} for a vocabulary of {len(vocabulary):,}: it belongs to "
            "another model.",
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ConfigurationError(
            "bad_query_table",
            f"{path} holds weights that are negative, NaN or infinite, and OpenSearch refuses such boosts. Train the "
            "table with a lower bound of 0.",
        )
    # the shortest form that reads back as the same float32
    return {
        piece: float(str(np.float32(weights[index])))
        for piece, index in sorted(vocabulary.items(), key=lambda pair: pair[1])
        if weights[index] > 0
    }


def _read_line_table(path: Path) -> dict[str, float]:
    """Read lines of piece, tab and weight."""
    table: dict[str, float] = {}
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                piece, weight = line.rstrip("\r").rsplit("\t", 1)
                table[piece] = float(weight)
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_query_table", f"{path} is not a table of pieces and weights: {error}.") from None
    if not all(0 <= weight < math.inf for weight in table.values()):
        raise ConfigurationError("bad_query_table", f"{path} holds weights that are negative, NaN or infinite.")
    return table
