"""Puts an encoder together from a start and a recipe, and splits its parameters for the optimiser.

A SparseEncoder that is saved under the public names of sentence-transformers' own modules.

Our modules compute what their base classes compute, from the same parameters, only cheaper. A saved encoder names the
base classes, so it loads wherever sentence-transformers is installed, without this package and without remote code,
and a checkpoint of the trainer loads into a model that is being trained. See docs/decisions/0100.

Where training starts: finds weights, tokeniser, query table and IDF in a local directory or under a hub name.

Two layouts are read: that of transformers (config.json, model.safetensors, tokenizer.json, with query_weights.json and
idf.json beside them: also what `save_checkpoint` writes), and that of published inference-free encoders
(`models.hub.layout`). Safetensors only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from sentence_transformers.util import fullname
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from models.download import fetch_snapshot, is_hub_name
from models.export.hub_import import (
    ROUTER,
    read_layout,
    read_published_table,
    require_one_tokenizer,
    require_safetensors,
)
from models.export.package import excluded_piece_ids, read_vocabulary
from models.training.idf import PieceWeights, align_weights, read_weights
from models.training.modules import POOLING_ACTIVATIONS, MaxHeadPooling, QueryTableEmbedding, StatesTransformer
from models.training.recipe import EncoderRecipe
from services.encoders.manifest import expand_path
from services.errors import ConfigurationError, InvalidInput

PUBLIC_PACKAGE = "sentence_transformers."


class InferenceFreeEncoder(SparseEncoder):
    """A model document side and a table query side, with what `save_checkpoint` needs beside the modules.

    `recipe`, `idf` (float32 [vocabulary] or None) and `tokenizer_json` (the start's file) are set by `build_encoder`;
    they are None when a saved one is loaded by its class.
    """

    recipe: EncoderRecipe | None = None
    idf: PieceWeights | None = None
    tokenizer_json: bytes | None = None

    def save(self, path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Writes the layout of sentence-transformers, safetensors only.

        Raises InvalidInput (`not_finite_weights`) and writes nothing when a parameter is NaN or infinite: a checkpoint
        of such a model would replace a good one.
        """
        require_finite_parameters(self)
        super().save(path, *args, safe_serialization=True, **kwargs)
        names = {fullname(module): _public_name(module) for module in self.modules() if hasattr(module, "config_keys")}
        for file in (Path(path) / "modules.json", Path(path) / "router_config.json"):
            if file.is_file():
                content = json.loads(file.read_text(encoding="utf-8"))
                file.write_text(json.dumps(_rename_classes(content, names), indent=2) + "\n", encoding="utf-8")


def require_finite_parameters(model: nn.Module) -> None:
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
        if one.__module__.startswith(PUBLIC_PACKAGE):
            return f"{one.__module__}.{one.__qualname__}"
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _rename_classes(content: Any, names: dict[str, str]) -> Any:
    if isinstance(content, dict):
        return {key: _rename_classes(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [_rename_classes(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


STARTING_FILES = ("config.json", "tokenizer.json")


@dataclass(frozen=True)
class StartingPoint:
    """`directory` holds config.json, model.safetensors and tokenizer.json; the tables are [vocabulary] or absent."""

    directory: Path
    pieces: dict[str, int]
    query_weights: PieceWeights | None
    idf: PieceWeights | None


def read_starting_point(start: str | Path) -> StartingPoint:
    """Reads everything but the weights of the model. `start` is a directory, or a hub name (`models.download`).

    Raises ConfigurationError: `unknown_start` for what holds no model, `pickle_refused`, `bad_query_table` for a table
    of another tokeniser, `checkpoint_unsupported` for another tokeniser than WordPiece; and what `fetch` and
    `read_layout` raise.
    """
    root = fetch_snapshot(str(start)) if is_hub_name(str(start)) else expand_path(str(start))
    if not root.is_dir():
        raise ConfigurationError("unknown_start", f"There is no directory {root} to start from.")
    if (root / ROUTER).is_file():
        return _read_published(root)
    missing = [name for name in STARTING_FILES if not (root / name).is_file()]
    if missing:
        raise ConfigurationError(
            "unknown_start",
            f"{root} holds no encoder to start from: {' and '.join(missing)} missing (config.json, model.safetensors "
            "and tokenizer.json belong there).",
        )
    require_safetensors(root)
    pieces = read_vocabulary(root / "tokenizer.json")
    query_weights, idf = (
        read_weights(path, pieces) if (path := root / name).is_file() else None
        for name in ("query_weights.json", "idf.json")
    )
    return StartingPoint(root, pieces, query_weights, idf)


def _read_published(root: Path) -> StartingPoint:
    layout = read_layout(root)
    require_safetensors(layout.model)
    pieces = read_vocabulary(require_one_tokenizer(layout))
    table = align_weights(read_published_table(layout.table, pieces), pieces)
    # the published encoders' idf.json is their query table as well
    idf = root / "idf.json"
    return StartingPoint(layout.model, pieces, table, read_weights(idf, pieces) if idf.is_file() else None)


# relu turns a bias this low into an exact zero; half precision still holds it.
EXCLUDED_BIAS = -3e4
# In both families' words. Fused attention on a GPU has no dropout; without it everywhere, a recipe trains alike on
# every device and with either head. Dropout of the hidden states stays as the start has it.
NO_ATTENTION_DROPOUT = {"attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}


def build_encoder(
    start: str | Path, recipe: EncoderRecipe, idf: PieceWeights | None = None, *, device: str | None = None
) -> InferenceFreeEncoder:
    """The encoder of a recipe, its weights those of the start: see `models.training.architecture` for what that is.

    `idf` [vocabulary] takes the place of the start's idf.json. Queries are encoded with `encode_query` (or the task
    `query`), documents with `encode_document`; both give [texts, vocabulary]. Special pieces and `[unusedN]` weigh 0
    on both sides, whatever is learned.

    Raises ConfigurationError: those of `read_starting_point`, `bad_idf` when a table is needed and none is there or it is
    of another size, `bad_recipe` when passages are longer than the model reads.
    """
    found = read_starting_point(start)
    size = max(found.pieces.values()) + 1
    excluded = excluded_piece_ids(found.pieces)
    table = found.idf if idf is None else np.asarray(idf, dtype=np.float32)
    _check_idf(table, size, recipe)
    documents = _build_document_side(found, recipe, excluded)
    tokenizer = documents[0].tokenizer
    queries = QueryTableEmbedding(
        _make_query_tokenizer(tokenizer),
        weight=_initial_query_weights(found, table, recipe, size),
        frozen=recipe.query_weighting != "learned",
        excluded=excluded,
    )
    router = Router.for_query_document(query_modules=[queries], document_modules=documents)
    encoder = InferenceFreeEncoder(modules=[router], device=device, similarity_fn_name="dot")
    encoder.recipe = recipe
    encoder.idf = table
    encoder.tokenizer_json = (found.directory / "tokenizer.json").read_bytes()
    return encoder


def _check_idf(idf: PieceWeights | None, size: int, recipe: EncoderRecipe) -> None:
    if idf is None:
        if recipe.needs_idf:
            raise ConfigurationError(
                "bad_idf",
                "This recipe needs an IDF table and the start has no idf.json: give one of the passages "
                "(models.training.idf.passage_idf).",
            )
    elif idf.shape != (size,) or not np.isfinite(idf).all() or (idf < 0).any():
        raise ConfigurationError(
            "bad_idf",
            f"An IDF table for this tokeniser has {size:,} finite values of at least 0; this one has the shape "
            f"{idf.shape} and belongs to another, or is damaged.",
        )


def _initial_query_weights(found: StartingPoint, idf: PieceWeights | None, recipe: EncoderRecipe, size: int) -> Tensor:
    if recipe.query_weighting == "none":
        return torch.ones(size)
    learned = recipe.query_weighting == "learned" and found.query_weights is not None
    chosen = found.query_weights if learned else idf
    return torch.ones(size) if chosen is None else torch.from_numpy(chosen.astype(np.float32))


def _build_document_side(found: StartingPoint, recipe: EncoderRecipe, excluded: Collection[int]) -> list[nn.Module]:
    transformer = _build_transformer(found, recipe)
    size = max(found.pieces.values()) + 1
    if transformer.model.config.vocab_size != size:
        raise ConfigurationError(
            "checkpoint_unsupported",
            f"The tokeniser has {size:,} pieces and the model's head {transformer.model.config.vocab_size:,}: they do "
            "not belong together.",
        )
    allowed = torch.ones(size)
    allowed[sorted(excluded)] = 0.0
    lexical = SparseStaticEmbedding(transformer.tokenizer, weight=allowed, frozen=True)
    if recipe.document_weighting == "binary":
        lexical.max_seq_length = recipe.passage_pieces
        return [lexical]
    _exclude_pieces(transformer.model, excluded)
    kind = MaxHeadPooling if recipe.head == "chunked" else SpladePooling
    pooling = kind("max", activation_function=POOLING_ACTIVATIONS[recipe.activation], embedding_dimension=size)
    # a static embedding after another one multiplies: only pieces of the text keep their weight
    return [transformer, pooling] if recipe.expansion else [transformer, pooling, lexical]


def _build_transformer(found: StartingPoint, recipe: EncoderRecipe) -> Transformer:
    chunked = recipe.head == "chunked" and recipe.document_weighting == "learned"
    kind = StatesTransformer if chunked else Transformer
    try:
        transformer = kind(
            str(found.directory),
            transformer_task="fill-mask",
            model_kwargs={
                "dtype": torch.float32,
                "use_safetensors": True,
                "trust_remote_code": False,
                "local_files_only": True,
            },
            # "[SEP]" in a text is five characters, for the workers (models.encoder) as here
            processor_kwargs={"split_special_tokens": True, "trust_remote_code": False, "local_files_only": True},
            config_kwargs={"trust_remote_code": False, "local_files_only": True, **NO_ATTENTION_DROPOUT},
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigurationError("unknown_start", f"{found.directory} cannot be loaded: {error}") from None
    longest = transformer.model.config.max_position_embeddings
    if recipe.passage_pieces > longest:
        raise ConfigurationError(
            "bad_recipe", f"passage_pieces is {recipe.passage_pieces} and this model reads at most {longest}: lower it."
        )
    transformer.max_seq_length = recipe.passage_pieces
    _require_special_pieces(transformer.tokenizer)
    return transformer


def _require_special_pieces(tokenizer: Any) -> None:
    """Makes sure that passages are opened by [CLS] and closed by [SEP], as the workers do it: a tokenizer.json without
    a post-processor would train on other input than it is served with."""
    special = [(piece, tokenizer.convert_tokens_to_ids(piece)) for piece in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )


def _make_query_tokenizer(tokenizer: Any) -> Any:
    """A tokeniser of its own, because its longest input is another: a query is a bag, no position limits it."""
    own = copy.deepcopy(tokenizer)
    own.model_max_length = 8192
    return own


def _exclude_pieces(model: nn.Module, excluded: Collection[int]) -> None:
    """Takes pieces out of every vector for good: relu cuts their bias off and lets no gradient through.

    Done in the weights, so that every loader (sentence-transformers, the exporter) sees the same encoder.
    """
    decoder = model.get_output_embeddings()
    if decoder is None or getattr(decoder, "bias", None) is None:
        raise ConfigurationError(
            "checkpoint_unsupported", f"{type(model).__name__} has no masked-language head with a bias to train."
        )
    with torch.no_grad():
        decoder.bias[sorted(excluded)] = EXCLUDED_BIAS


def parameter_groups(
    model: nn.Module, learning_rate: float, table_learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """The trainable parameters for an optimiser: matrices, then biases and norms without decay, then the query table.

    The table has a learning rate of its own (1e-3 in arXiv 2505.01452) and no decay: decay would pull the weight of a
    piece down that no query of the batch has. Groups without parameters are left out.
    """
    tables = {id(one.weight) for one in model.modules() if isinstance(one, QueryTableEmbedding)}
    matrices: list[Tensor] = []
    vectors: list[Tensor] = []
    table: list[Tensor] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        kind = table if id(parameter) in tables else matrices if parameter.ndim > 1 else vectors
        kind.append(parameter)
    groups = [
        {"params": matrices, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": vectors, "lr": learning_rate, "weight_decay": 0.0},
        {"params": table, "lr": table_learning_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
