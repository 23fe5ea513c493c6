"""A query without a model: tokenise, look each distinct piece up in a table of weights that belongs to the encoder.

This is the inference-free query side of arXiv 2411.04403: repeated pieces count once, the weight is the table's.

How pieces of a vocabulary are shown: with WordPiece's marks, whatever marks the tokeniser itself uses.

A piece that begins a word is shown as it is read, one that goes on within a word with `##` before it. Byte-level BPE
and SentencePiece mark the opposite, the beginning of a word ("Ġword", "▁word"); one convention in every answer means
that people, the search page and scripts read explanations of all encoders alike.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer

from services.encoders.manifest import Manifest, read_manifest, verify_file
from services.errors import ConfigurationError, InvalidInput

_BYTE_SPACE, _META_SPACE = "Ġ", "▁"
# SentencePiece's piece for a byte of a character that it does not have.
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes for bytes (GPT-2): printable Latin-1 is itself, the others follow."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _identity_text(piece: str) -> str:
    return piece


def _byte_text(piece: str) -> str:
    """The text of a byte-level piece; bytes that are no whole characters are shown as `<e2 80>`."""
    if not all(character in _ALPHABET for character in piece):
        return piece  # (an added piece, written as plain text)
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


def make_piece_decoder(tokenizer: Tokenizer) -> Callable[[str], str]:
    """What gives the text that a piece stands for, a leading space included. WordPiece pieces stay as they are."""
    if type(tokenizer.model).__name__ == "WordPiece":
        return _identity_text
    vocabulary = tokenizer.get_vocab()
    if _BYTE_SPACE in vocabulary:
        return _byte_text
    return _meta_text if _META_SPACE in vocabulary else _identity_text


def make_piece_formatter(tokenizer: Tokenizer) -> Callable[[str], str]:
    """What turns a piece of the vocabulary into what people are shown."""
    text_of = make_piece_decoder(tokenizer)
    if text_of is _identity_text:
        return _identity_text

    def shown(piece: str) -> str:
        text = text_of(piece)
        word = text.removeprefix(" ")
        if word[:1].isalnum():
            return word if word != text else f"##{text}"
        return text.replace(" ", _META_SPACE).replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")

    return shown


TOKENIZER_FILE = "tokenizer.json"
QUERY_WEIGHTS_FILE = "query_weights.json"
# A boost is a float32.
MAX_QUERY_WEIGHT = 3.4e38
# How WordPiece marks a piece that goes on within a word.
_CONTINUATION_PREFIX = "##"


@dataclass(frozen=True, slots=True)
class QueryVector:
    """Distinct pieces in order of appearance: vocabulary ids and their weights; `pieces` counts repeated ones too.

    `pruned` holds what `services.query.expansion` left out of it, as pairs of id and weight.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    pieces: int
    pruned: tuple[tuple[int, float], ...] = ()

    def by_id(self) -> dict[int, float]:
        return dict(zip(self.ids, self.weights, strict=True))


class QueryTable:
    """Tokeniser and weights of one encoder. Stateless after loading; safe to share between threads."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, weights: Sequence[float]) -> None:
        self.manifest = manifest
        self._tokenizer = tokenizer
        self._weights = weights
        # the largest weight
        self.heaviest = max(weights, default=0.0)
        self._display = make_piece_formatter(tokenizer)
        self._special = frozenset(i for i, piece in tokenizer.get_added_tokens_decoder().items() if piece.special)
        self._words_alone = _is_context_free(tokenizer)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads tokenizer.json and query_weights.json of a model directory and nothing else of it.

        Raises ConfigurationError for missing or changed files (codes of `services.encoders.manifest`), `bad_tokenizer`, and
        `bad_query_table` for unknown pieces and for weights that are not finite numbers of zero or more (OpenSearch
        refuses a boost below zero).
        """
        manifest = read_manifest(directory)
        tokenizer = _load_tokenizer(verify_file(directory, manifest, TOKENIZER_FILE))
        path = verify_file(directory, manifest, QUERY_WEIGHTS_FILE)
        vocabulary = tokenizer.get_vocab()
        if max(vocabulary.values(), default=0) >= manifest.vocabulary:
            raise ConfigurationError(
                "bad_tokenizer",
                f"{directory / TOKENIZER_FILE} has piece ids up to {max(vocabulary.values()):,}, and the encoder a "
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
        return cls(manifest, tokenizer, weights)

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def weight(self, piece_id: int) -> float:
        """The weight of a vocabulary id; 0 for one that the table does not have."""
        return self._weights[piece_id] if 0 <= piece_id < len(self._weights) else 0.0

    def encode(self, text: str, max_pieces: int | None = None) -> QueryVector:
        """The weighted pieces of a query. Pieces of weight zero (special ones, unknown words) are left out.

        Raises InvalidInput (`query_too_long`) when the text has more than `max_pieces` pieces.
        """
        found = self._tokenizer.encode(text, add_special_tokens=False).ids
        if max_pieces is not None and len(found) > max_pieces:
            raise InvalidInput(
                "query_too_long",
                f"The query has {len(found):,} pieces and the limit is {max_pieces:,}: shorten it, "
                "or search with its most telling sentences.",
            )
        weights = self._weights
        ids = tuple(i for i in dict.fromkeys(found) if weights[i] > 0.0)
        return QueryVector(ids, tuple([weights[i] for i in ids]), len(found))

    def piece(self, piece_id: int) -> str:
        """The piece of a vocabulary id as `services.encoders.query_table` shows it; an id outside the vocabulary is `#id`."""
        piece = self._tokenizer.id_to_token(piece_id)
        return f"#{piece_id}" if piece is None else self._display(piece)

    def ids(self, text: str) -> list[int]:
        """All vocabulary ids of a text in order, without special pieces."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """Every piece of a text in order, without special ones: id, first character, the character after its last."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [(i, start, end) for i, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)]

    def occurring(self, ids: Collection[int], text: str) -> set[int]:
        """Which of the ids are pieces of a text.

        Only words that may hold one of them are tokenised, each once, where words do not influence each other: a text
        of 1 MB takes about 30 ms then, and 600 ms otherwise.
        """
        if self._words_alone:
            spelt = [(self._tokenizer.id_to_token(i) or "").removeprefix(_CONTINUATION_PREFIX).lower() for i in ids]
            text = " ".join(word for word in dict.fromkeys(_words(text)) if _may_contain(word, spelt))
        return set(ids) & set(self.ids(text))

    def word_ids(self, text: str) -> list[int]:
        """The distinct ids of a text in order of appearance that a query may weigh: no special ones, [UNK] included."""
        return [i for i in dict.fromkeys(self.ids(text)) if i not in self._special]

    def weighted_ids(self) -> list[int]:
        """The vocabulary ids with a weight above zero, heaviest first; of equal weights the lower id."""
        return sorted((i for i, weight in enumerate(self._weights) if weight > 0), key=lambda i: -self._weights[i])

    def weighted(self) -> list[tuple[str, float]]:
        """Every piece with a weight above zero, heaviest first; of equal weights the lower id."""
        return [(self.piece(i), self._weights[i]) for i in self.weighted_ids()]


def _is_context_free(tokenizer: Tokenizer) -> bool:
    """Whether a word between spaces has the same pieces wherever it stands."""
    model = tokenizer.model
    return (
        type(model).__name__ == "WordPiece"
        and model.continuing_subword_prefix == _CONTINUATION_PREFIX
        and type(tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer"
    )


def _words(text: str) -> list[str]:
    """Split where BERT's normaliser surely has white space: other characters that Python splits at, it takes out."""
    return text.replace("\n", " ").replace("\t", " ").replace("\r", " ").split(" ")


def _may_contain(word: str, spelt: Sequence[str]) -> bool:
    """False only where none of the pieces can be in the word. What the normaliser changes is left to the tokeniser."""
    if not (word.isascii() and word.isprintable()):
        return True
    word = word.lower()
    return any(piece in word for piece in spelt)


def read_query_weights(path: Path) -> dict[str, float]:
    """A table's file: a JSON object of piece to weight. Raises ConfigurationError (`bad_query_table`)."""
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError("bad_query_table", f"{path} is no JSON: {error}; export the encoder again.") from None
    if not isinstance(table, dict):
        raise ConfigurationError("bad_query_table", f"{path} is no JSON object of piece to weight.")
    for piece, weight in table.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_QUERY_WEIGHT:
            raise ConfigurationError(
                "bad_query_table",
                f"{path}: {piece!r} has the weight {weight!r}; weights are finite numbers of zero or more.",
            )
    return {piece: float(weight) for piece, weight in table.items()}


def _load_tokenizer(path: Path) -> Tokenizer:
    """Never truncates or pads; "[MASK]" in a query is five characters that somebody typed, as it is in a document."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigurationError("bad_tokenizer", f"{path} is no usable tokenizer.json: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
