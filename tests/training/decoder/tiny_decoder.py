"""A tiny random Mistral of two layers and width 32, with a byte-level BPE tokeniser trained on a few sentences."""

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import MistralConfig, MistralForCausalLM

from models.decoder.checkpoint import DecoderCheckpoint, load_checkpoint
from models.decoder.model import EchoSplade

SENTENCES = [
    "The wing of an aeroplane carries the load of the flight.",
    "A boundary layer grows along the surface of a wing.",
    "The library of a town lends books to its readers.",
    "Readers return the books of the library on time.",
    "Heat flows through a wall when one side is warmer.",
    "The warmer side of a wall loses its heat to the air.",
    "A cat sleeps on the warm wall beside the library.",
    "An aeroplane flies; its wing is warm (and the air is cold).",
]
SPECIAL = ["<s>", "</s>"]


@cache
def byte_level_json(vocabulary: int = 420) -> str:
    """Return a byte-level BPE tokeniser like those of decoders: it keeps case, and the space before a word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(SENTENCES + [sentence.lower() for sentence in SENTENCES] * 3, trainer)
    return tokenizer.to_str()


def byte_level() -> Tokenizer:
    return Tokenizer.from_str(byte_level_json())


def tiny_config(vocabulary: int, *, tied: bool = True, **changes: object) -> MistralConfig:
    return MistralConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, sliding_window=None, bos_token_id=0, eos_token_id=1,
        pad_token_id=None, tie_word_embeddings=tied, **changes,
    )  # fmt: skip


def make_start(directory: Path, *, tied: bool = True, seed: int = 7) -> Path:
    """Make a checkpoint directory in a decoder's published layout: config.json, model.safetensors, tokenizer.json."""
    torch.manual_seed(seed)
    tokenizer = byte_level()
    model = MistralForCausalLM(tiny_config(tokenizer.get_vocab_size(), tied=tied))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.4)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def tiny_checkpoint(directory: Path, **options: object) -> DecoderCheckpoint:
    return load_checkpoint(str(make_start(directory, **options)))


def tiny_document(directory: Path, **options: object) -> EchoSplade:
    """Return a document encoder whose bias leaves some pieces at zero."""
    document = EchoSplade.from_checkpoint(tiny_checkpoint(directory, **options), longest=64)
    with torch.no_grad():
        document.bias -= 2.0
    return document.eval()
