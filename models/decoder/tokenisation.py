"""Tokenisation for a decoder: one spelling of a word, echo input and the IDF of pieces. No PyTorch.

A decoder's tokeniser gives "Cat", "cat", " cat" and "(cat" different pieces, and a query without a model cannot know
that they are the same word. `make_matching_tokenizer` normalises text on both sides (`docs/decisions/0120`).
`EchoFormat` writes a text twice, because under a causal mask only the second copy has seen the whole text (arXiv
2408.11119, 2402.15449). `passage_idf_weights` is the initial query table (`docs/decisions/0101`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, normalizers

from models.idf import PieceWeights, document_frequencies, inverse_document_frequency
from services.encoders.manifest import MAX_VOCABULARY
from services.encoders.query_table import make_piece_decoder, make_piece_formatter
from services.errors import ConfigurationError

# Pieces of bytes that are not a whole character, as `services.encoders.query_table` formats them.
_BYTE_PIECE = re.compile(r"<[0-9a-f]{2}(?: [0-9a-f]{2})*>")
BATCH_PASSAGES = 1024
# The position before a word that follows a sign or an underscore ("(cat", "os.path", "read_file"), but not after an
# apostrophe ("don't") and not within a number ("3.14").
_WORD_AFTER_SIGN = r"(?<=[^\s\w'’]|_)(?=[^\W\d_])"
IdMatrix = npt.NDArray[np.int64]


def make_matching_tokenizer(tokenizer: Tokenizer, *, lowercase: bool = True) -> Tokenizer:
    """Copy a tokeniser with the normaliser for matching, without special pieces, truncation and padding.

    Raises ConfigurationError (`vocabulary_too_large`) above `MAX_VOCABULARY` pieces.
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
    """Make the error `vocabulary_too_large` for a model of `size` pieces."""
    return ConfigurationError(
        "vocabulary_too_large",
        f"The vocabulary has {size:,} pieces, and vectors have at most {MAX_VOCABULARY:,}. Choose a model with a "
        "smaller vocabulary (Mistral-7B-v0.1 has 32,000, SmolLM2 49,152).",
    )


def _begins_words(tokenizer: Tokenizer) -> bool:
    """Check whether the first word of a text gets the piece of a word within it, as SentencePiece does."""
    return make_piece_decoder(tokenizer)(tokenizer.encode("a", add_special_tokens=False).tokens[0]).startswith(" ")


def read_tokenizer(directory: Path) -> Tokenizer:
    """Read the tokenizer.json of a directory unchanged. Raises ConfigurationError (`bad_tokenizer`)."""
    path = directory / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigurationError("bad_tokenizer", f"{path} is not a usable tokenizer.json: {error}") from None


def unsearchable_ids(tokenizer: Tokenizer) -> set[int]:
    """Return ids that no query can contain, so that documents need no weight for them.

    Special pieces and blank pieces are unsearchable, and pieces with capitals when the tokeniser lowercases.
    """
    text_of = make_piece_decoder(tokenizer)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    lowercases = tokenizer.normalizer is not None and "a" in tokenizer.normalizer.normalize_str("A")
    ids = set()
    for piece, index in tokenizer.get_vocab(with_added_tokens=True).items():
        spelled = text_of(piece).strip()
        if piece in special or not spelled or (lowercases and spelled != spelled.lower()):
            ids.add(index)
    return ids


@dataclass(frozen=True, slots=True)
class EchoFormat:
    """The frame of echo input: ids before the first copy (beginning of sequence) and between the copies."""

    before: tuple[int, ...]
    between: tuple[int, ...]

    def positions(self, pieces: int) -> int:
        """Return the model positions that a window of `pieces` pieces takes."""
        return len(self.before) + len(self.between) + 2 * pieces

    def room(self, positions: int) -> int:
        """Return the longest window, in pieces, for a model of `positions` positions."""
        return (positions - self.positions(0)) // 2

    def row(self, pieces: Sequence[int]) -> list[int]:
        """Return the model's input ids for a window."""
        return [*self.before, *pieces, *self.between, *pieces]


@dataclass(frozen=True, slots=True)
class EchoBatch:
    """A batch of echo input, int64 [rows, length], padded on the right; `pooling_mask` is 1 on the second copies."""

    input_ids: IdMatrix
    attention_mask: IdMatrix
    pooling_mask: IdMatrix


def build_echo_batch(rows: Sequence[Sequence[int]], echo: EchoFormat) -> EchoBatch:
    """Build the batch of windows of piece ids. A window without pieces has an empty pooling mask.

    Padding needs no special id: under a causal mask no position sees positions to its right.
    """
    length = max((echo.positions(len(row)) for row in rows), default=0)
    input_ids = np.zeros((len(rows), length), dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    pooling_mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        ids = echo.row(row)
        input_ids[index, : len(ids)] = ids
        attention_mask[index, : len(ids)] = 1
        pooling_mask[index, len(ids) - len(row) : len(ids)] = 1
    return EchoBatch(input_ids, attention_mask, pooling_mask)


def make_echo_format(tokenizer: Tokenizer, begin: int | None) -> EchoFormat:
    """Make the echo format of a model: its beginning of sequence (`begin`), the text, a line break, the text."""
    line_break = next((i for i in map(tokenizer.token_to_id, ("Ċ", "<0x0A>", "▁", "Ġ")) if i is not None), None)
    before = () if begin is None else (int(begin),)
    return EchoFormat(before, before if line_break is None else (line_break,))


def passage_idf_weights(
    tokenizer: Tokenizer, passages: Sequence[str], size: int, excluded: Collection[int]
) -> PieceWeights:
    """Compute the IDF of pieces over passages, float32 [size]; 0 for `excluded` ids.

    Unseen signs and unseen bytes of characters get the smallest value of a seen piece instead of the largest, because
    one byte of three does not identify a character. Raises InvalidInput (`empty_collection`).
    """
    format_piece = make_piece_formatter(tokenizer)
    pieces = {format_piece(piece): index for piece, index in tokenizer.get_vocab().items()}
    rows = (
        encoding.ids
        for first in range(0, len(passages), BATCH_PASSAGES)
        for encoding in tokenizer.encode_batch_fast(
            list(passages[first : first + BATCH_PASSAGES]), add_special_tokens=False
        )
    )
    frequencies, count = document_frequencies(rows, size)
    weights = inverse_document_frequency(frequencies, count, pieces, excluded)
    counted = np.ones(size, dtype=bool)
    counted[list(excluded)] = False
    byte_pieces = [index for piece, index in pieces.items() if _BYTE_PIECE.fullmatch(piece) and counted[index]]
    unseen = [index for index in byte_pieces if not frequencies[index]]
    weights[unseen] = weights[counted & (frequencies > 0)].min()
    return weights
