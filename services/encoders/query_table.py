"""Inference-free query encoding: tokenise the query and look up the weight of each distinct piece in a table.

This is the query side of arXiv 2411.04403: a repeated piece counts once, and the table belongs to the encoder.

Pieces are displayed in WordPiece's notation for every tokeniser: plain at the beginning of a word, with `##` within it.
Byte-level BPE and SentencePiece mark the beginning instead ("Ġword", "▁word"). With one notation, explanations of all
encoders read alike for people, the search page and scripts.
"""

import json
import logging
import re
from array import array
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer

from services.encoders.manifest import Manifest, check_file, read_manifest, verify_file
from services.encoders.piece_frequencies import PieceFrequencies
from services.errors import ConfigurationError, InvalidInput

log = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.json"
QUERY_WEIGHTS_FILE = "query_weights.json"
REFERENCE_FILE = "reference_frequencies.json"
# A boost is a float32.
MAX_QUERY_WEIGHT = 3.4e38
# WordPiece's mark of a piece within a word.
_CONTINUATION_PREFIX = "##"

_BYTE_SPACE, _META_SPACE = "Ġ", "▁"
# SentencePiece's piece for one byte of an unknown character.
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class QueryVector:
    """The distinct pieces of a query in order of appearance, as vocabulary ids and weights.

    `pieces` also counts repeated pieces. `pruned` holds the pieces that `services.query.expansion` removed, as pairs of
    id and weight.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    pieces: int
    pruned: tuple[tuple[int, float], ...] = ()

    def by_id(self) -> dict[int, float]:
        """Return the weights by vocabulary id."""
        return dict(zip(self.ids, self.weights, strict=True))


class QueryTable:
    """The tokeniser and the piece weights of one encoder. Immutable after loading, so threads can share it."""

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: Tokenizer,
        weights: Sequence[float],
        reference: PieceFrequencies | None = None,
    ) -> None:
        """`reference`: the frequencies of pieces in the reference corpus; None: the table cannot be adapted."""
        self.manifest = manifest
        self.reference = reference
        self._tokenizer = tokenizer
        self._weights = weights
        # The encoder's weights, of which `weights` are an adaptation to an index; None: they are the encoder's own.
        self._own_weights: Sequence[float] | None = None
        self.heaviest = max(weights, default=0.0)
        self._display = make_piece_formatter(tokenizer)
        self._special = frozenset(i for i, piece in tokenizer.get_added_tokens_decoder().items() if piece.special)
        self._words_alone = _is_context_free(tokenizer)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read tokenizer.json and query_weights.json of a model directory, and no other file.

        Raises ConfigurationError: for missing or changed files the codes of `verify_file`, `bad_tokenizer`, and
        `bad_query_table` for unknown pieces and for weights that are not finite and non-negative (OpenSearch refuses a
        negative boost).
        """
        manifest = read_manifest(directory)
        tokenizer = _load_tokenizer(verify_file(directory, manifest, TOKENIZER_FILE))
        path = verify_file(directory, manifest, QUERY_WEIGHTS_FILE)
        vocabulary = tokenizer.get_vocab()
        if max(vocabulary.values(), default=0) >= manifest.vocabulary:
            raise ConfigurationError(
                "bad_tokenizer",
                f"{directory / TOKENIZER_FILE} has piece ids up to {max(vocabulary.values()):,}, but the encoder has a "
                f"vocabulary of {manifest.vocabulary:,}: it is another model's; export the encoder again with its own.",
            )
        weights = [0.0] * manifest.vocabulary
        for piece, weight in read_query_weights(path).items():
            if piece not in vocabulary:
                raise ConfigurationError(
                    "bad_query_table",
                    f"{path}: the tokeniser beside it has no piece {piece!r}: table and tokeniser "
                    "belong to different models; export the encoder again with its own.",
                )
            weights[vocabulary[piece]] = weight
        return cls(manifest, tokenizer, weights, _read_reference(directory, manifest))

    def adapt(self, frequencies: PieceFrequencies) -> Self:
        """Return a table whose weights are adapted to an index with these frequencies of pieces.

        Tables without a reference, and indexes without documents, keep the encoder's weights. Raises ConfigurationError
        (`bad_frequencies`).
        """
        if self.reference is None or not frequencies.documents:
            return self
        factors = frequencies.factors(self.reference, len(self._weights))
        adapted = copy(self)
        # A boost is a float32. As Python's own floats the weights of an index would take a megabyte.
        adapted._weights = array("f", (factors * self._weights).astype(np.float32).tobytes())
        adapted._own_weights = self._weights
        adapted.heaviest = max(adapted._weights, default=0.0)
        return adapted

    def own_weight(self, piece_id: int) -> float | None:
        """Return the encoder's weight of a vocabulary id; None if the table is not adapted to an index."""
        return None if self._own_weights is None else self._own_weights[piece_id]

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the encoder."""
        return self.manifest.fingerprint

    def weight(self, piece_id: int) -> float:
        """Return the weight of a vocabulary id, 0 for an unknown one."""
        return self._weights[piece_id] if 0 <= piece_id < len(self._weights) else 0.0

    def encode(self, text: str, max_pieces: int | None = None) -> QueryVector:
        """Return the weighted pieces of a query, without pieces of weight zero (special pieces, unknown words).

        Raises InvalidInput (`query_too_long`) if the text has more than `max_pieces` pieces.
        """
        piece_ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if max_pieces is not None and len(piece_ids) > max_pieces:
            raise InvalidInput(
                "query_too_long",
                f"The query has {len(piece_ids):,} pieces and the limit is {max_pieces:,}: shorten it, "
                "or search with its most distinctive sentences.",
            )
        weights = self._weights
        ids = tuple(i for i in dict.fromkeys(piece_ids) if weights[i] > 0.0)
        return QueryVector(ids, tuple([weights[i] for i in ids]), len(piece_ids))

    def piece(self, piece_id: int) -> str:
        """Return the display form of a vocabulary id; `#id` for an id outside the vocabulary."""
        piece = self._tokenizer.id_to_token(piece_id)
        return f"#{piece_id}" if piece is None else self._display(piece)

    def token(self, piece_id: int) -> str:
        """Return the piece of a vocabulary id as the tokeniser writes it; `#id` for an id outside the vocabulary."""
        return self._tokenizer.id_to_token(piece_id) or f"#{piece_id}"

    def ids(self, text: str) -> list[int]:
        """Return all vocabulary ids of a text in order, without special pieces."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """Return every piece of a text in order as (id, start, end), end exclusive, without special pieces."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [(i, start, end) for i, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)]

    def occurring(self, ids: Collection[int], text: str) -> set[int]:
        """Return the ids that are pieces of a text.

        Where words are tokenised independently, only words that may hold one of the ids are tokenised, each once. A
        text of 1 MB then takes about 30 ms instead of 600 ms.
        """
        if self._words_alone:
            spelt = [(self._tokenizer.id_to_token(i) or "").removeprefix(_CONTINUATION_PREFIX).lower() for i in ids]
            text = " ".join(word for word in dict.fromkeys(_words(text)) if _may_contain(word, spelt))
        return set(ids) & set(self.ids(text))

    def word_ids(self, text: str) -> list[int]:
        """Return the distinct ids of a text that a query may weight, in order: all but special pieces, with [UNK]."""
        return [i for i in dict.fromkeys(self.ids(text)) if i not in self._special]

    def weighted_ids(self) -> list[int]:
        """Return the ids with a positive weight, heaviest first; at equal weight the lower id first."""
        return sorted((i for i, weight in enumerate(self._weights) if weight > 0), key=lambda i: -self._weights[i])

    def weighted(self) -> list[tuple[str, float]]:
        """Return every piece with a positive weight, heaviest first; at equal weight the lower id first."""
        return [(self.piece(i), self._weights[i]) for i in self.weighted_ids()]


def _read_reference(directory: Path, manifest: Manifest) -> PieceFrequencies | None:
    """Read the frequencies of pieces in the reference corpus, if the encoder has them.

    They are not among the files of the fingerprint, because they change no vector. Searches do without a file that was
    not copied with the others.
    """
    path = directory / REFERENCE_FILE
    if manifest.reference is None:
        return None
    if not path.is_file():
        log.warning("%s is missing: the weights of %s are not adapted to indexes.", path, manifest.name)
        return None
    check_file(path, manifest.reference)
    try:
        members = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigurationError("bad_frequencies", f"{path} is not JSON: {error}") from None
    return PieceFrequencies.unpack(members if isinstance(members, dict) else {})


def read_query_weights(path: Path) -> dict[str, float]:
    """Read a table file: a JSON object from piece to weight. Raises ConfigurationError (`bad_query_table`)."""
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError("bad_query_table", f"{path} is not JSON: {error}; export the encoder again.") from None
    if not isinstance(table, dict):
        raise ConfigurationError("bad_query_table", f"{path} is not a JSON object of piece to weight.")
    for piece, weight in table.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_QUERY_WEIGHT:
            raise ConfigurationError(
                "bad_query_table",
                f"{path}: {piece!r} has the weight {weight!r}; weights must be finite and not negative.",
            )
    return {piece: float(weight) for piece, weight in table.items()}


def _load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokeniser without truncation, padding or special pieces in text: "[MASK]" in a query is five typed
    characters.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigurationError("bad_tokenizer", f"{path} is not a usable tokenizer.json: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _is_context_free(tokenizer: Tokenizer) -> bool:
    """Return whether the pieces of a word between spaces do not depend on its context."""
    model = tokenizer.model
    return (
        type(model).__name__ == "WordPiece"
        and model.continuing_subword_prefix == _CONTINUATION_PREFIX
        and type(tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer"
    )


def _words(text: str) -> list[str]:
    """Split at the white space that BERT's normaliser certainly keeps.

    It removes other characters that Python splits at.
    """
    return text.replace("\n", " ").replace("\t", " ").replace("\r", " ").split(" ")


def _may_contain(word: str, spelt: Sequence[str]) -> bool:
    """Return False only if none of the pieces can be in the word. Non-ASCII words are left to the tokeniser."""
    if not (word.isascii() and word.isprintable()):
        return True
    word = word.lower()
    return any(piece in word for piece in spelt)


def make_piece_formatter(tokenizer: Tokenizer) -> Callable[[str], str]:
    """Return a function from a piece of the vocabulary to its display form."""
    text_of = make_piece_decoder(tokenizer)
    if text_of is _identity_text:
        return _identity_text

    def format_piece(piece: str) -> str:
        text = text_of(piece)
        word = text.removeprefix(" ")
        if word[:1].isalnum():
            return word if word != text else f"##{text}"
        return text.replace(" ", _META_SPACE).replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")

    return format_piece


def make_piece_decoder(tokenizer: Tokenizer) -> Callable[[str], str]:
    """Return a function from a piece to the text it stands for, with a leading space if any.

    WordPiece is left as it is.
    """
    if type(tokenizer.model).__name__ == "WordPiece":
        return _identity_text
    vocabulary = tokenizer.get_vocab()
    if _BYTE_SPACE in vocabulary:
        return _byte_text
    return _meta_text if _META_SPACE in vocabulary else _identity_text


def _identity_text(piece: str) -> str:
    return piece


def _byte_alphabet() -> dict[str, int]:
    """Map the characters of byte-level BPE to bytes (GPT-2): printable Latin-1 maps to itself, the rest follow in
    order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _byte_text(piece: str) -> str:
    """Return the text of a byte-level piece; bytes that are not whole characters are shown as `<e2 80>`."""
    if not all(character in _ALPHABET for character in piece):
        return piece  # an added piece is plain text
    data = bytes(_ALPHABET[character] for character in piece)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"<{data.hex(' ')}>"


def _meta_text(piece: str) -> str:
    byte = _BYTE.fullmatch(piece)
    if byte:
        value = int(byte[1], 16)
        return chr(value) if value < 0x80 else f"<{value:02x}>"
    return piece.replace(_META_SPACE, " ")
