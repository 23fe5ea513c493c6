"""A masked language model of a few thousand weights, with tokeniser and tables, as a start of training."""

import json
from pathlib import Path

import torch
import transformers

PIECES = [
    "[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "[", "]", ".", "##s",
    "cat", "dog", "house", "the", "sep", "mask",
]  # fmt: skip
EXCLUDED = set(range(6))
TEXTS = ["the cat", "dogs. the house of a cat", "[SEP] cat [MASK] q", "x", "the " * 30, "cats dogs " * 12]


def make_start(directory: Path, family: str = "bert", *, pieces: list[str] | None = None, longest: int = 40) -> Path:
    """Write config.json, model.safetensors, tokenizer.json, query_weights.json and idf.json; return the directory."""
    torch.manual_seed(7)
    directory.mkdir(parents=True)
    pieces = pieces or PIECES
    if family == "bert":
        config = transformers.BertConfig(
            vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=longest,
        )  # fmt: skip
        model = transformers.BertForMaskedLM(config)
    else:
        config = transformers.DistilBertConfig(
            vocab_size=len(pieces), dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=longest
        )
        model = transformers.DistilBertForMaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(directory)
    tokenizer = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": None, "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {piece: index for index, piece in enumerate(pieces)}},
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "query_weights.json").write_text(
        json.dumps({piece: 0.5 + index for index, piece in enumerate(pieces)})
    )
    (directory / "idf.json").write_text(json.dumps({piece: 0.25 + index for index, piece in enumerate(pieces)}))
    return directory
