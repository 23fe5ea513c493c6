"""What every document encoder offers.

Cuts a long text into overlapping windows of the encoder's own pieces, so that nothing is cut off silently.

An encoder's own tokeniser: whole texts to pieces with character offsets, never truncated, never padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from tokenizers import Tokenizer

from services.encoders.manifest import Manifest, verify_file
from services.encoders.query_table import make_piece_formatter
from services.encoders.vectors import SparseVector
from services.errors import ConfigurationError, InvalidInput

PieceOffsets = Sequence[tuple[int, int]]

_SENTENCE_ENDS = frozenset(".!?…。！？؟।")


@dataclass(frozen=True, slots=True)
class TextWindow:
    """Characters `start` to `end` (exclusive) of a text, and the vocabulary ids of its pieces, special ones left out.

    A stretch without pieces (white space, control characters) makes a window with no ids.
    """

    start: int
    end: int
    piece_ids: tuple[int, ...]


def _is_word_start(text: str, offsets: PieceOffsets, index: int) -> bool:
    return offsets[index][0] > offsets[index - 1][1]


def _is_sentence_start(text: str, offsets: PieceOffsets, index: int) -> bool:
    """Whether a line or a sentence ends just before the piece `index`."""
    before, after = offsets[index - 1][1], offsets[index][0]
    if "\n" in text[before:after]:
        return True
    last = text[before - 1 : before]
    return last in _SENTENCE_ENDS and (after > before or last in "。！？")


def _best_cut(text: str, offsets: PieceOffsets, candidates: range) -> int:
    """The first candidate that begins a sentence or a line, else the first that begins a word, else the first."""
    word = None
    for index in candidates:
        if _is_sentence_start(text, offsets, index):
            return index
        if word is None and _is_word_start(text, offsets, index):
            word = index
    return candidates[0] if word is None else word


def cut_windows(
    text: str, piece_ids: Sequence[int], offsets: PieceOffsets, pieces: int, overlap: int
) -> list[TextWindow]:
    """Windows of at most `pieces` pieces; neighbours share at most `overlap` pieces and at least half of that.

    `offsets` holds for each piece its characters in `text` (start, end), in order. A window ends and begins at the
    end of a sentence or line when there is one among the last eighth of its pieces (or in the overlap), otherwise
    between words, otherwise anywhere. Every character belongs to a window: what lies between two pieces goes with
    the piece before it. An empty text has no window. Takes time linear in the text.

    Raises InvalidInput (`bad_window`) unless 1 <= pieces and 0 <= overlap <= pieces / 2.
    """
    if pieces < 1 or overlap < 0 or overlap * 2 > pieces:
        raise InvalidInput(
            "bad_window", f"A window has at least one piece and overlaps by at most half: {pieces=}, {overlap=}."
        )
    if not text:
        return []
    windows: list[TextWindow] = []
    total = len(piece_ids)
    first = start = 0
    while total - first > pieces:
        limit = first + pieces
        after = _best_cut(text, offsets, range(limit, limit - pieces // 8 - 1, -1))
        end = offsets[after][0]
        windows.append(TextWindow(start, end, tuple(piece_ids[first:after])))
        first = _best_cut(text, offsets, range(after - overlap, after - (overlap + 1) // 2 + 1)) if overlap else after
        start = offsets[first][0]
    windows.append(TextWindow(start, len(text), tuple(piece_ids[first:])))
    return windows


class PieceTokeniser:
    """Cuts texts into windows of pieces. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # A document that speaks about "[SEP]" means five characters, not the model's separator.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._display = make_piece_formatter(tokenizer)
        # BERT's splitting leaves white space out; pieces of other tokenisers carry the space before a word.
        self._spaced = type(tokenizer.model).__name__ != "WordPiece"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a tokenizer.json. Raises ConfigurationError (`bad_tokenizer`)."""
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises bare Exception
            raise ConfigurationError("bad_tokenizer", f"{path} is no usable tokenizer.json: {error}") from None

    def windows(self, text: str, pieces: int, overlap: int) -> list[TextWindow]:
        """The windows of a text, see `cut_windows`. A surrogate half counts as one unknown character."""
        clean = _replace_surrogates(text)
        encoding = self._tokenizer.encode(clean, add_special_tokens=False)
        offsets = trim_offsets(clean, encoding.offsets) if self._spaced else encoding.offsets
        return cut_windows(clean, encoding.ids, offsets, pieces, overlap)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The piece ids of each whole text, without special pieces."""
        encodings = self._tokenizer.encode_batch_fast(
            [_replace_surrogates(text) for text in texts], add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]

    def id_of(self, piece: str) -> int:
        """The vocabulary id of a piece. Raises ConfigurationError (`bad_tokenizer`) when it has none."""
        found = self._tokenizer.token_to_id(piece)
        if found is None:
            raise ConfigurationError("bad_tokenizer", f"The tokeniser has no piece {piece!r}.")
        return int(found)

    def piece(self, piece_id: int) -> str:
        """The piece of a vocabulary id as `services.encoders.query_table` shows it; an id outside the vocabulary is `#id`."""
        piece = self._tokenizer.id_to_token(piece_id)
        return f"#{piece_id}" if piece is None else self._display(piece)

    def vocabulary(self) -> dict[str, int]:
        """Every piece with its id."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))


def _replace_surrogates(text: str) -> str:
    """The text with every surrogate half replaced by one character, so that offsets stay right."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def trim_offsets(text: str, offsets: PieceOffsets) -> list[tuple[int, int]]:
    """Offsets of pieces without the white space at their ends and without overlap, for `cut_windows`.

    A piece of white space alone becomes empty where it begins. Several pieces may stand for one character (bytes of
    it); it belongs to the first of them. Takes time linear in the text.
    """
    result: list[tuple[int, int]] = []
    last = 0
    for start, end in offsets:
        first = max(start, last)
        last = max(end, first)
        while last > first and text[last - 1].isspace():
            last -= 1
        while first < last and text[first].isspace():
            first += 1
        result.append((first, last))
    return result


class Encoder(Protocol):
    """A document encoder with the directory's manifest. `encode` is deterministic and independent of its batch."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def fingerprint(self) -> str: ...

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[TextWindow]:
        """The windows of a text; sizes not given are the manifest's. See `models.encoder.cut_windows`.

        Raises InvalidInput (`bad_window`) when a window would not fit the model.
        """
        ...

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        """One vector a window, in the given order. A window without pieces has the empty vector.

        Raises InvalidInput (`not_finite_weights`, with the position as `window`) when the model gives NaN or infinity.
        """
        ...

    def piece(self, piece_id: int) -> str:
        """The piece of a vocabulary id."""
        ...


class WordPieceEncoder:
    """What encoders with a WordPiece tokeniser of their own share: everything but the weights."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Raises ConfigurationError for a missing, changed or unusable tokeniser."""
        self.manifest = manifest
        self._pieces = PieceTokeniser.load(verify_file(directory, manifest, "tokenizer.json"))

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def piece(self, piece_id: int) -> str:
        return self._pieces.piece(piece_id)

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[TextWindow]:
        settings = self.manifest.window
        size = settings.pieces if pieces is None else pieces
        room = self.manifest.max_pieces - 2
        if size > room:
            raise InvalidInput(
                "bad_window", f"The encoder {self.manifest.name} takes windows of at most {room} pieces, not {size}."
            )
        return self._pieces.windows(text, size, settings.overlap if overlap is None else overlap)


def make_finite_vector(
    ids: np.ndarray, weights: np.ndarray, encoder: str, position: int, window: TextWindow
) -> SparseVector:
    """The vector of a window from the k heaviest pieces that a model gave.

    Raises InvalidInput (`not_finite_weights`, with the position as `window`) for NaN or infinity.
    """
    if not np.isfinite(weights).all():
        raise InvalidInput(
            "not_finite_weights",
            f"The encoder {encoder} gave NaN or infinite weights for window {position} (characters {window.start} to "
            f"{window.end}); the text or the weights of the model are at fault.",
            window=position,
        )
    return SparseVector.of(ids, weights)
