"""A decoder on the document side and a table on the query side: one SparseEncoder of sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from models.decoder.module import EchoSplade
from models.training.idf import read_weights
from models.training.query_side import QueryTableEmbedding
from services.query_table import QUERY_WEIGHTS

# Longer queries are cut in training; serving has its own limit.
LONGEST_QUERY = 512


def assemble(document: EchoSplade, weights: Tensor, *, learn: bool = False, device: str | None = None) -> SparseEncoder:
    """`weights` float32 [vocabulary] are the query table's; with `learn` they are trained along.

    Published models encode queries with the decoder too (arXiv 2408.11119, 2504.10816); a table is our extension.
    """
    query = QueryTableEmbedding(query_tokenizer(document), weights.float(), not learn, document.excluded_ids())
    return SparseEncoder(modules=[Router.for_query_document([query], [document])], device=device)


def load_sparse_encoder(
    directory: Path, *, dtype: torch.dtype | None = None, device: str | None = None
) -> SparseEncoder:
    """The encoder of a model directory, with its query table.

    Raises ConfigurationError (`bad_model`, `bad_tokenizer`, `bad_query_table`).
    """
    document = EchoSplade.load(str(directory), dtype=dtype)
    table = torch.from_numpy(read_weights(directory / QUERY_WEIGHTS, document.tokenizer.get_vocab()))
    weights = torch.zeros(document.get_embedding_dimension())
    weights[: table.numel()] = table
    return assemble(document, weights, device=device)


def query_tokenizer(document: EchoSplade) -> Any:
    """The document side's tokeniser in the class that sentence-transformers' query side wants.

    It pads with an id that never counts: padding writes 0 over the id's place in the bag of pieces.
    """
    added = document.tokenizer.get_added_tokens_decoder()
    padding = next((token.content for token in added.values() if token.special), None)
    own = Tokenizer.from_str(document.tokenizer.to_str())
    if padding is None:
        padding = own.id_to_token(min(document.excluded_ids()))
    return PreTrainedTokenizerFast(tokenizer_object=own, pad_token=padding, model_max_length=LONGEST_QUERY)
