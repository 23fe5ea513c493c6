"""Small encoders in the published layouts, written by sentence-transformers."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

PIECES = [
    "[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", ".", "?", "##s",
    "cat", "dog", "house", "the", "weather", "rainy", "new", "york", "now",
]  # fmt: skip
SPECIAL = PIECES[:6]
LONGEST = 40
# Runs `sparsewell encoders export` with arguments; returns exit status, standard output and standard error.
Export = Callable[..., tuple[int, str, str]]


def write_start(directory: Path, family: str, seed: int = 5) -> Path:
    """Write a transformers directory with random weights, and a WordPiece tokeniser with BERT's [CLS] and [SEP]."""
    torch.manual_seed(seed)
    directory.mkdir(parents=True)
    (directory / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    tokenizer = transformers.BertTokenizerFast(vocab=str(directory / "vocab.txt"), model_max_length=LONGEST)
    if family == "bert":
        config: Any = transformers.BertConfig(
            vocab_size=len(PIECES), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=LONGEST,
        )  # fmt: skip
        model: Any = transformers.BertForMaskedLM(config)
    else:
        config = transformers.DistilBertConfig(
            vocab_size=len(PIECES), dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=LONGEST
        )
        model = transformers.DistilBertForMaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    idf = {piece: 0.3 + index / 10 for index, piece in enumerate(PIECES) if piece not in SPECIAL}
    (directory / "idf.json").write_text(json.dumps(idf))
    return directory


def as_saved(directory: Path, family: str, activation: str = "relu") -> Path:
    """Write an encoder in the layout of SparseEncoder.save: a folder for each module."""
    start = write_start(directory.with_name(f"{directory.name}-start"), family)
    document = Transformer(str(start), transformer_task="fill-mask")
    query = SparseStaticEmbedding.from_json(str(start / "idf.json"), tokenizer=document.tokenizer, frozen=True)
    router = Router.for_query_document([query], [document, SpladePooling("max", activation_function=activation)])
    SparseEncoder(modules=[router], similarity_fn_name="dot").save(str(directory), create_model_card=False)
    return directory


def as_published(directory: Path, family: str, activation: str = "relu") -> Path:
    """Write an encoder as OpenSearch's on the hub: the model in the directory itself, and early class names."""
    as_saved(directory, family, activation)
    model = directory / "document_0_Transformer"
    (model / "sentence_bert_config.json").unlink()
    for file in model.iterdir():
        file.rename(directory / file.name)
    model.rmdir()
    shutil.copy(directory.with_name(f"{directory.name}-start") / "idf.json", directory / "idf.json")
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x02 a pickle that lies beside the safetensors")
    (directory / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n\n# An encoder\n")
    (directory / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}])
    )
    kinds = "sentence_transformers.sparse_encoder.models"
    router = {
        "types": {
            "query_0_SparseStaticEmbedding": f"{kinds}.SparseStaticEmbedding",
            "": f"{kinds}.MLMTransformer",
            "document_1_SpladePooling": f"{kinds}.SpladePooling",
        },
        "structure": {"query": ["query_0_SparseStaticEmbedding"], "document": ["", "document_1_SpladePooling"]},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    (directory / "router_config.json").write_text(json.dumps(router))
    return directory


def as_published_first(directory: Path, family: str) -> Path:
    """Write an encoder in OpenSearch's first layout: only a model's files, without a description of modules."""
    start = write_start(directory.with_name(f"{directory.name}-start"), family)
    shutil.copytree(start, directory)
    return directory


def original(directory: Path) -> SparseEncoder:
    """Load the encoder with sentence-transformers."""
    with warnings.catch_warnings():
        # The early class names are deprecated.
        warnings.simplefilter("ignore")
        return SparseEncoder(str(directory), device="cpu")
