"""Tiny random generators with a byte tokeniser, and toy episodes whose text shows their chapters."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LongT5Config,
    LongT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

TOPICS = ("soil", "rain", "wool", "milk")
SPECIAL = ["<pad>", "</s>"]
_T5 = {
    "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
    "pad_token_id": 0, "eos_token_id": 1, "dropout_rate": 0.0,
}  # fmt: skip


def byte_tokenizer(*, closes: bool) -> Tokenizer:
    """Return a tokeniser with one piece for each byte. With `closes`, an encoder text ends with </s>, as for T5."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if closes:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def make_generator(directory: Path, kind: str = "llama", seed: int = 3) -> Path:
    """Make a checkpoint directory: config.json, model.safetensors, tokenizer.json."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer(closes=kind != "llama")
    size = tokenizer.get_vocab_size()
    if kind == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=2048, bos_token_id=0, eos_token_id=1, pad_token_id=0,
                tie_word_embeddings=True,
            )
        )  # fmt: skip
    elif kind == "t5":
        model = T5ForConditionalGeneration(T5Config(vocab_size=size, **_T5))
    else:
        model = LongT5ForConditionalGeneration(
            LongT5Config(vocab_size=size, encoder_attention_type="transient-global", local_radius=15, **_T5)
        )
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def write_episodes(path: Path, count: int = 24) -> Path:
    """Write episodes. Each chapter has four sentences on one topic, and the topic is its title."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            order = [TOPICS[(number + i) % 4] for i in range(4)]
            episode = {
                "id": f"toy{number}",
                "title": "Farm",
                "utterances": [{"text": f"On {topic} {i}: {topic * 9}."} for topic in order for i in range(4)],
                "chapters": [{"start_utterance": 4 * i, "title": topic} for i, topic in enumerate(order)],
            }
            file.write(json.dumps(episode) + "\n")
    return path
