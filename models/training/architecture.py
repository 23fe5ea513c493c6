"""Inference-free encoder in training: its two sides, built from a start and a recipe, and saved as a checkpoint.

`build_encoder` joins a document model and a query table. `read_starting_point` reads weights, tokeniser, query table
and IDF from a local directory or a hub name, safetensors only, in two layouts: that of transformers (config.json,
model.safetensors, tokenizer.json, with query_weights.json and idf.json beside them, as `save_checkpoint` writes it),
and that of published inference-free encoders (`models.export.hub_import`).

An encoder is saved under the class names of sentence-transformers. The modules of this package compute the same as
these classes, from the same parameters at lower cost, so a saved encoder loads wherever sentence-transformers is
installed, without this package and without remote code, and a checkpoint of the trainer loads into a model in training
(docs/decisions/0100).
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Module, Router, Transformer
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
from models.export.package import copy_tokenizer, excluded_piece_ids, read_vocabulary
from models.export.publish import write_library_layout
from models.idf import PieceWeights, align_weights, read_weights, write_weights
from models.training.modules import (
    POOLING_ACTIVATIONS,
    ClsHeadPooling,
    HeaviestWeights,
    MaxHeadPooling,
    QueryTableEmbedding,
    StatesTransformer,
    TokenWeightPooling,
)
from models.training.recipe import EncoderRecipe
from services.directories import replace_directory
from services.encoders.manifest import expand_path
from services.encoders.query_table import QUERY_WEIGHTS_FILE
from services.errors import ConfigurationError, InvalidInput

PUBLIC_PACKAGE = "sentence_transformers."
STARTING_FILES = ("config.json", "tokenizer.json")
# relu turns a logit with this bias into an exact zero, and half precision can hold it.
EXCLUDED_BIAS = -3e4
# The names in BERT and DistilBERT. Fused attention on a GPU has no dropout; switching it off everywhere makes a recipe
# train alike on every device and with either head. Dropout of the hidden states stays as the start has it.
NO_ATTENTION_DROPOUT = {"attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}


class InferenceFreeEncoder(SparseEncoder):
    """Encoder with a document model and a query table, and the data that `save_checkpoint` needs beside the modules.

    `build_encoder` sets `recipe`, `idf` (float32 [vocabulary] or None) and `tokenizer_json` (the start's file). All
    three are None in a saved encoder that is loaded by its class.
    """

    recipe: EncoderRecipe | None = None
    idf: PieceWeights | None = None
    tokenizer_json: bytes | None = None

    def save(self, path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the layout of sentence-transformers, safetensors only.

        Raises InvalidInput (`not_finite_weights`) and writes nothing when a parameter is NaN or infinite, so that no
        such checkpoint replaces a good one.
        """
        require_finite_parameters(self)
        super().save(path, *args, safe_serialization=True, **kwargs)
        names = {fullname(module): _public_name(module) for module in self.modules() if hasattr(module, "config_keys")}
        for file in (Path(path) / "modules.json", Path(path) / "router_config.json"):
            if file.is_file():
                content = json.loads(file.read_text(encoding="utf-8"))
                file.write_text(json.dumps(_rename_classes(content, names), indent=2) + "\n", encoding="utf-8")


def require_finite_parameters(model: nn.Module) -> None:
    """Raise InvalidInput (`not_finite_weights`), naming the first parameter that holds NaN or infinity."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise InvalidInput(
                "not_finite_weights",
                f"The parameter {name} holds NaN or infinity, so nothing was saved: go back to the last checkpoint and "
                "lower the learning rate, or train in float32.",
                parameter=name,
            )


def _public_name(module: nn.Module) -> str:
    """Return the nearest class in the module's method resolution order that sentence-transformers defines.

    Its abstract Module is none: a class directly below it keeps its own name.
    """
    for base in type(module).__mro__:
        if base.__module__.startswith(PUBLIC_PACKAGE) and base is not Module:
            return f"{base.__module__}.{base.__qualname__}"
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _rename_classes(content: Any, names: dict[str, str]) -> Any:
    if isinstance(content, dict):
        return {key: _rename_classes(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [_rename_classes(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


def build_encoder(
    start: str | Path, recipe: EncoderRecipe, idf: PieceWeights | None = None, *, device: str | None = None
) -> InferenceFreeEncoder:
    """Build the encoder of a recipe with the weights of the start.

    `idf` [vocabulary] replaces the start's idf.json, unless the recipe's fixed query table is that of the start
    (`query_weighting = "idf"`): its documents were trained with this table. `encode_query` (or the task `query`)
    encodes queries, `encode_document` documents; both give [texts, vocabulary]. Special pieces and `[unusedN]` always
    weigh 0 on both sides.

    Raises ConfigurationError: those of `read_starting_point`, `bad_idf` when a table is needed and absent or of another
    size, `bad_recipe` when passages are longer than the model reads.
    """
    point = read_starting_point(start)
    size = max(point.pieces.values()) + 1
    excluded = excluded_piece_ids(point.pieces)
    keeps_own = idf is None or (recipe.query_weighting == "idf" and point.idf is not None)
    table = point.idf if keeps_own else np.asarray(idf, dtype=np.float32)
    _check_idf(table, size, recipe)
    documents = _build_document_side(point, recipe, excluded)
    tokenizer = documents[0].tokenizer
    if recipe.uses_model_for_queries:
        # Both sides share the transformer, as in SPLADE; each side has its own pooling.
        queries = [documents[0], *_pooling_modules(recipe.query_weighting, documents[0], recipe, excluded)]
    else:
        queries = [
            QueryTableEmbedding(
                _make_query_tokenizer(tokenizer),
                weight=_initial_query_weights(point, table, recipe, size),
                frozen=recipe.query_weighting != "learned",
                excluded=excluded,
            )
        ]
    router = Router.for_query_document(query_modules=queries, document_modules=documents)
    encoder = InferenceFreeEncoder(modules=[router], device=device, similarity_fn_name="dot")
    encoder.recipe = recipe
    encoder.idf = table
    encoder.tokenizer_json = (point.directory / "tokenizer.json").read_bytes()
    return encoder


def _check_idf(idf: PieceWeights | None, size: int, recipe: EncoderRecipe) -> None:
    if idf is None:
        if recipe.needs_idf:
            raise ConfigurationError(
                "bad_idf",
                "This recipe needs an IDF table and the start has no idf.json: give a table of the passages "
                "(models.idf.passage_idf).",
            )
    elif idf.shape != (size,) or not np.isfinite(idf).all() or (idf < 0).any():
        raise ConfigurationError(
            "bad_idf",
            f"An IDF table for this tokeniser has {size:,} finite values of at least 0; this table has the shape "
            f"{idf.shape}: it belongs to another tokeniser, or is damaged.",
        )


def _initial_query_weights(point: StartingPoint, idf: PieceWeights | None, recipe: EncoderRecipe, size: int) -> Tensor:
    if recipe.query_weighting == "none":
        return torch.ones(size)
    use_learned = recipe.query_weighting == "learned" and point.query_weights is not None
    weights = point.query_weights if use_learned else idf
    return torch.ones(size) if weights is None else torch.from_numpy(weights.astype(np.float32))


def _build_document_side(point: StartingPoint, recipe: EncoderRecipe, excluded: Collection[int]) -> list[nn.Module]:
    transformer = _build_transformer(point, recipe)
    size = max(point.pieces.values()) + 1
    if transformer.model.config.vocab_size != size:
        raise ConfigurationError(
            "checkpoint_unsupported",
            f"The tokeniser has {size:,} pieces and the model's head has {transformer.model.config.vocab_size:,}: they "
            "do not belong together.",
        )
    if recipe.document_weighting == "binary":
        lexical = _own_pieces(transformer, excluded)
        lexical.max_seq_length = transformer.max_seq_length
        return [lexical]
    _exclude_pieces(transformer.model, excluded)
    modules = [transformer, *_pooling_modules(recipe.document_weighting, transformer, recipe, excluded)]
    if not recipe.expansion and recipe.document_weighting != "mlp":
        modules.append(_own_pieces(transformer, excluded))
    return modules if recipe.top_k is None else [*modules, HeaviestWeights(recipe.top_k)]


def _pooling_modules(
    weighting: str, transformer: Transformer, recipe: EncoderRecipe, excluded: Collection[int]
) -> list[nn.Module]:
    """Return the modules that make the weights of a text from the transformer's output."""
    size = transformer.model.config.vocab_size
    if weighting == "mlp":
        pooling = TokenWeightPooling(transformer.model.config.hidden_size, size, recipe.activation)
        return [pooling, _own_pieces(transformer, excluded)]
    kind = ClsHeadPooling if weighting == "cls_mlm" else MaxHeadPooling if recipe.head == "chunked" else SpladePooling
    return [kind("max", activation_function=POOLING_ACTIVATIONS[recipe.activation], embedding_dimension=size)]


def _own_pieces(transformer: Transformer, excluded: Collection[int]) -> SparseStaticEmbedding:
    """Return weight 1 for the pieces of a text. After a pooling it multiplies: only these pieces keep a weight."""
    allowed = torch.ones(transformer.model.config.vocab_size)
    allowed[sorted(excluded)] = 0.0
    return SparseStaticEmbedding(transformer.tokenizer, weight=allowed, frozen=True)


def _build_transformer(point: StartingPoint, recipe: EncoderRecipe) -> Transformer:
    chunked = recipe.head == "chunked" and recipe.document_weighting != "binary"
    kind = StatesTransformer if chunked else Transformer
    try:
        transformer = kind(
            str(point.directory),
            transformer_task="fill-mask",
            model_kwargs={
                "dtype": torch.float32,
                "use_safetensors": True,
                "trust_remote_code": False,
                "local_files_only": True,
            },
            # as in the workers (models.encoder), "[SEP]" in a text is five characters
            processor_kwargs={"split_special_tokens": True, "trust_remote_code": False, "local_files_only": True},
            config_kwargs={"trust_remote_code": False, "local_files_only": True, **NO_ATTENTION_DROPOUT},
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigurationError("unknown_start", f"{point.directory} cannot be loaded: {error}") from None
    longest = transformer.model.config.max_position_embeddings
    if recipe.passage_pieces > longest:
        raise ConfigurationError(
            "bad_recipe", f"passage_pieces is {recipe.passage_pieces} and this model reads at most {longest}: lower it."
        )
    # The words of `expand_by` come before the text. A word has a piece and a half, and the text keeps its length.
    room = 3 * recipe.expand_words // 2 if recipe.expand_by else 0
    transformer.max_seq_length = min(recipe.passage_pieces + room, longest)
    _require_special_pieces(transformer.tokenizer)
    return transformer


def _require_special_pieces(tokenizer: Any) -> None:
    """Make passages begin with [CLS] and end with [SEP], as the workers do.

    A tokenizer.json without a post-processor would train on other input than the encoder serves.
    """
    special = [(piece, tokenizer.convert_tokens_to_ids(piece)) for piece in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )


def _make_query_tokenizer(tokenizer: Any) -> Any:
    """Copy the tokeniser with a longer maximum: a query is a bag of pieces, so positions do not limit it."""
    copied = copy.deepcopy(tokenizer)
    copied.model_max_length = 8192
    return copied


def _exclude_pieces(model: nn.Module, excluded: Collection[int]) -> None:
    """Exclude pieces from every vector for good: relu cuts off their bias and passes no gradient.

    The exclusion is in the weights, so every loader (sentence-transformers, the exporter) sees the same encoder.
    """
    decoder = model.get_output_embeddings()
    if decoder is None or getattr(decoder, "bias", None) is None:
        raise ConfigurationError(
            "checkpoint_unsupported", f"{type(model).__name__} has no masked-language head with a bias to train."
        )
    with torch.no_grad():
        decoder.bias[sorted(excluded)] = EXCLUDED_BIAS


@dataclass(frozen=True)
class StartingPoint:
    """Start of a training. `directory` holds config.json, model.safetensors and tokenizer.json; tables are [vocabulary]
    or None.
    """

    directory: Path
    pieces: dict[str, int]
    query_weights: PieceWeights | None
    idf: PieceWeights | None


def read_starting_point(start: str | Path) -> StartingPoint:
    """Read everything but the weights of the model. `start` is a directory, or a hub name (`models.download`).

    Raises ConfigurationError: `unknown_start` for a directory without a model, `pickle_refused`, `bad_query_table` for
    a table of another tokeniser, `checkpoint_unsupported` for tokenisers other than WordPiece; and the errors of
    `fetch_snapshot` and `read_layout`.
    """
    root = fetch_snapshot(str(start)) if is_hub_name(str(start)) else expand_path(str(start))
    if not root.is_dir():
        raise ConfigurationError("unknown_start", f"There is no directory {root} to start from.")
    # A checkpoint of ours has a Router too, and more beside it.
    if (root / ROUTER).is_file() and not (root / QUERY_WEIGHTS_FILE).is_file():
        return _read_published(root)
    missing = [name for name in STARTING_FILES if not (root / name).is_file()]
    if missing:
        raise ConfigurationError(
            "unknown_start",
            f"{root} holds no encoder to start from: {' and '.join(missing)} missing (a start has config.json, "
            "model.safetensors and tokenizer.json).",
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
    # in published encoders idf.json is also the query table
    idf = root / "idf.json"
    return StartingPoint(layout.model, pieces, table, read_weights(idf, pieces) if idf.is_file() else None)


def save_checkpoint(model: InferenceFreeEncoder, directory: Path) -> None:
    """Write the directory that `sparsewell encoders export DIRECTORY OUT` and `build_encoder` read.

    The directory holds config.json and model.safetensors (float32, head tied; encoders that cannot be served have
    neither), tokenizer.json, query_weights.json, recipe.json, and idf.json if there is an IDF table.
    Beside them it has the files of `models.export.publish.write_library_layout`, so `SparseEncoder(directory)` of
    sentence-transformers is this encoder, with its table.
    It is written under another name and renamed, so it is complete or absent.

    Raises InvalidInput (`not_finite_weights`) when a parameter is NaN or infinite; the old directory stays.
    """
    if model.recipe is None or model.tokenizer_json is None:
        raise ConfigurationError("bad_recipe", "Only encoders of build_encoder can be saved as a checkpoint.")
    require_finite_parameters(model)
    with replace_directory(directory) as fresh:
        if model.recipe.is_servable:
            write_library_layout(model, fresh)
        _write_own_files(model, model.tokenizer_json, fresh)
        model.recipe.write(fresh)


def _write_own_files(model: InferenceFreeEncoder, tokenizer_json: bytes, directory: Path) -> None:
    # the start's file replaces those of transformers, which truncate, pad, and list special pieces once more
    original = directory / "given.json"
    original.write_bytes(tokenizer_json)
    copy_tokenizer(original, directory / "tokenizer.json")
    original.unlink()
    for route_file in directory.glob("*/tokenizer.json"):
        shutil.copyfile(directory / "tokenizer.json", route_file)
    pieces = read_vocabulary(directory / "tokenizer.json")
    excluded = excluded_piece_ids(pieces)
    queries = model[0].sub_modules["query"][0]
    if isinstance(queries, QueryTableEmbedding):
        queries.project()
        table = queries.weight.detach().float().cpu().numpy()
        write_weights(directory / "query_weights.json", table, pieces, excluded)
    if model.idf is not None:
        write_weights(directory / "idf.json", model.idf, pieces, excluded)
