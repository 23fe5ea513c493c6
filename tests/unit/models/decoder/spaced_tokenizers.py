"""Small tokenisers of the two kinds that decoders have: byte-level BPE and SentencePiece's, trained on a few words."""

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

WORDS = "the cat sat on a mat temporary folder of the library read file path join world hello"
TEXTS = [f"The Cat sat. {WORDS}", f"{WORDS} {WORDS.upper()}", f"({WORDS})"]
SPECIAL = ["<s>", "</s>"]


@cache
def _byte_level() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer.to_str()


@cache
def _metaspace() -> str:
    """Make a tokeniser like those of Llama and Mistral: spaces are "▁", unknown characters are bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False, max_token_length=12,
    )  # fmt: skip
    tokenizer.train_from_iterator([word for text in TEXTS for word in text.split()] * 3, trainer)
    content = json.loads(tokenizer.to_str())
    # The trainer can add bytes to the vocabulary only as special tokens. Models have them as ordinary pieces.
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    return json.dumps(content)


KINDS = {"byte level": _byte_level, "metaspace": _metaspace}


def make(kind: str) -> Tokenizer:
    """Make the tokeniser of a model, without the normaliser for matching."""
    return Tokenizer.from_str(KINDS[kind]())
