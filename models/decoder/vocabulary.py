"""Makes a decoder's tokeniser fit for matching: a word gets the same pieces in a query and anywhere in a document.

A decoder's tokeniser spells one word in many ways: "Cat", "cat", " cat" and "(cat" give different pieces, and a query
without a model cannot know that they mean the same. So text is put into one form before it is cut, on both sides, by
the tokeniser's own normaliser: see docs/decisions/0120 for each step and what it is worth.

The start of a query table over a decoder's vocabulary: inverse document frequency over passages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, normalizers

from models.training.idf import PieceWeights, document_frequencies, inverse_document_frequency
from services.encoders.manifest import MAX_VOCABULARY
from services.encoders.query_table import make_piece_decoder, make_piece_formatter
from services.errors import ConfigurationError

# What `services.encoders.query_table` shows for bytes that are no whole character.
_BYTE_PIECE = re.compile(r"<[0-9a-f]{2}(?: [0-9a-f]{2})*>")
BATCH_PASSAGES = 1024


def passage_idf_weights(
    tokenizer: Tokenizer, passages: Sequence[str], size: int, excluded: Collection[int]
) -> PieceWeights:
    """The IDF of pieces over passages, float32 [size], 0 for `excluded` ids.

    Unseen signs, and unseen parts of characters that have no piece of their own, get the smallest value of a seen piece
    instead of the largest: one byte of three says nothing about which character it was.
    Raises InvalidInput (`empty_collection`).
    """
    shown = make_piece_formatter(tokenizer)
    pieces = {shown(piece): index for piece, index in tokenizer.get_vocab().items()}
    rows = (
        encoding.ids
        for first in range(0, len(passages), BATCH_PASSAGES)
        for encoding in tokenizer.encode_batch_fast(
            list(passages[first : first + BATCH_PASSAGES]), add_special_tokens=False
        )
    )
    frequencies, number = document_frequencies(rows, size)
    weights = inverse_document_frequency(frequencies, number, pieces, excluded)
    counted = np.ones(size, dtype=bool)
    counted[list(excluded)] = False
    parts = [index for piece, index in pieces.items() if _BYTE_PIECE.fullmatch(piece) and counted[index]]
    unseen = [index for index in parts if not frequencies[index]]
    weights[unseen] = weights[counted & (frequencies > 0)].min()
    return weights


# Before a word that follows a sign or an underscore: "(cat", "os.path", "read_file". Not after an apostrophe ("don't")
# and not within numbers ("3.14").
_WORD_AFTER_SIGN = r"(?<=[^\s\w'’]|_)(?=[^\W\d_])"


def make_matching_tokenizer(tokenizer: Tokenizer, *, lowercase: bool = True) -> Tokenizer:
    """A copy with the normaliser for matching, that adds no special pieces, never truncates and never pads.

    Raises ConfigurationError (`vocabulary_too_large`) above 65,536 pieces.
    """
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size > MAX_VOCABULARY:
        raise vocabulary_too_large(size)
    steps: list[normalizers.Normalizer] = [normalizers.NFC()]
    if lowercase:
        steps.append(normalizers.Lowercase())
    steps += [
        normalizers.Replace(Regex(_WORD_AFTER_SIGN), " "),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(left=True, right=True),
    ]
    if not _begins_words(tokenizer):
        steps.append(normalizers.Prepend(" "))
    if tokenizer.normalizer is not None:
        steps.append(tokenizer.normalizer)
    content = json.loads(tokenizer.to_str())
    content["post_processor"] = content["truncation"] = content["padding"] = None
    copy = Tokenizer.from_str(json.dumps(content))
    copy.normalizer = normalizers.Sequence(steps)
    return copy


def vocabulary_too_large(size: int) -> ConfigurationError:
    """The error (`vocabulary_too_large`) of a model of so many pieces."""
    return ConfigurationError(
        "vocabulary_too_large",
        f"The vocabulary has {size:,} pieces and vectors keep ids in two bytes, so {MAX_VOCABULARY:,} at most: "
        "choose a model with a smaller vocabulary (Mistral-7B-v0.1 has 32,000, SmolLM2 49,152).",
    )


def _begins_words(tokenizer: Tokenizer) -> bool:
    """Whether the first word of a text gets the piece that it has in the middle of one (SentencePiece does that)."""
    return make_piece_decoder(tokenizer)(tokenizer.encode("a", add_special_tokens=False).tokens[0]).startswith(" ")


def unsearchable_ids(tokenizer: Tokenizer) -> set[int]:
    """Ids that no query can ask for, so that no document needs to weigh them.

    They are special pieces, blank ones, and pieces with capitals where the tokeniser lowercases.
    """
    text_of = make_piece_decoder(tokenizer)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    lowercases = tokenizer.normalizer is not None and "a" in tokenizer.normalizer.normalize_str("A")
    found = set()
    for piece, index in tokenizer.get_vocab(with_added_tokens=True).items():
        spelled = text_of(piece).strip()
        if piece in special or not spelled or (lowercases and spelled != spelled.lower()):
            found.add(index)
    return found


def read_tokenizer(directory: Path) -> Tokenizer:
    """tokenizer.json of a directory, as it is. Raises ConfigurationError (`bad_tokenizer`)."""
    path = directory / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigurationError("bad_tokenizer", f"{path} is no usable tokenizer.json: {error}") from None
