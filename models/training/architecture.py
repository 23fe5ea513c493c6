"""Puts an encoder together from a start and a recipe, and splits its parameters for the optimiser."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from models.export.package import excluded_pieces
from models.training.document_side import POOLED_AS, MaxHeadPooling, StatesTransformer
from models.training.idf import Weights
from models.training.portable import InferenceFreeEncoder
from models.training.query_side import QueryTableEmbedding
from models.training.recipe_encoder import EncoderRecipe
from models.training.starting_point import StartingPoint, starting_point
from services.errors import ConfigurationError

# relu turns a bias this low into an exact zero; half precision still holds it.
NEVER = -3e4
# In both families' words. Fused attention on a GPU has no dropout; without it everywhere, a recipe trains alike on
# every device and with either head. Dropout of the hidden states stays as the start has it.
NO_ATTENTION_DROPOUT = {"attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}


def build_encoder(
    start: str | Path, recipe: EncoderRecipe, idf: Weights | None = None, *, device: str | None = None
) -> InferenceFreeEncoder:
    """The encoder of a recipe, its weights those of the start: see `models.training.starting_point` for what that is.

    `idf` [vocabulary] takes the place of the start's idf.json. Queries are encoded with `encode_query` (or the task
    `query`), documents with `encode_document`; both give [texts, vocabulary]. Special pieces and `[unusedN]` weigh 0
    on both sides, whatever is learned.

    Raises ConfigurationError: those of `starting_point`, `bad_idf` when a table is needed and none is there or it is
    of another size, `bad_recipe` when passages are longer than the model reads.
    """
    found = starting_point(start)
    size = max(found.pieces.values()) + 1
    excluded = excluded_pieces(found.pieces)
    table = found.idf if idf is None else np.asarray(idf, dtype=np.float32)
    _check_idf(table, size, recipe)
    documents = _document_side(found, recipe, excluded)
    tokenizer = documents[0].tokenizer
    queries = QueryTableEmbedding(
        _query_tokenizer(tokenizer),
        weight=_query_weights(found, table, recipe, size),
        frozen=recipe.query_weighting != "learned",
        excluded=excluded,
    )
    router = Router.for_query_document(query_modules=[queries], document_modules=documents)
    encoder = InferenceFreeEncoder(modules=[router], device=device, similarity_fn_name="dot")
    encoder.recipe = recipe
    encoder.idf = table
    encoder.tokenizer_json = (found.directory / "tokenizer.json").read_bytes()
    return encoder


def _check_idf(idf: Weights | None, size: int, recipe: EncoderRecipe) -> None:
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


def _query_weights(found: StartingPoint, idf: Weights | None, recipe: EncoderRecipe, size: int) -> Tensor:
    if recipe.query_weighting == "none":
        return torch.ones(size)
    learned = recipe.query_weighting == "learned" and found.query_weights is not None
    chosen = found.query_weights if learned else idf
    return torch.ones(size) if chosen is None else torch.from_numpy(chosen.astype(np.float32))


def _document_side(found: StartingPoint, recipe: EncoderRecipe, excluded: Collection[int]) -> list[nn.Module]:
    transformer = _transformer(found, recipe)
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
    _exclude(transformer.model, excluded)
    kind = MaxHeadPooling if recipe.head == "chunked" else SpladePooling
    pooling = kind("max", activation_function=POOLED_AS[recipe.activation], embedding_dimension=size)
    # a static embedding after another one multiplies: only pieces of the text keep their weight
    return [transformer, pooling] if recipe.expansion else [transformer, pooling, lexical]


def _transformer(found: StartingPoint, recipe: EncoderRecipe) -> Transformer:
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
            # "[SEP]" in a text is five characters, for the workers (models.tokenising) as here
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
    _open_and_close(transformer.tokenizer)
    return transformer


def _open_and_close(tokenizer: Any) -> None:
    """Makes sure that passages are opened by [CLS] and closed by [SEP], as the workers do it: a tokenizer.json without
    a post-processor would train on other input than it is served with."""
    special = [(piece, tokenizer.convert_tokens_to_ids(piece)) for piece in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )


def _query_tokenizer(tokenizer: Any) -> Any:
    """A tokeniser of its own, because its longest input is another: a query is a bag, no position limits it."""
    own = copy.deepcopy(tokenizer)
    own.model_max_length = 8192
    return own


def _exclude(model: nn.Module, excluded: Collection[int]) -> None:
    """Takes pieces out of every vector for good: relu cuts their bias off and lets no gradient through.

    Done in the weights, so that every loader (sentence-transformers, the exporter) sees the same encoder.
    """
    decoder = model.get_output_embeddings()
    if decoder is None or getattr(decoder, "bias", None) is None:
        raise ConfigurationError(
            "checkpoint_unsupported", f"{type(model).__name__} has no masked-language head with a bias to train."
        )
    with torch.no_grad():
        decoder.bias[sorted(excluded)] = NEVER


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
