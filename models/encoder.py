"""Document encoders and the windows that they read.

An encoder cuts a text into overlapping windows of its own pieces, so that nothing is truncated silently, and gives
one sparse vector a window (`docs/decisions/0020`). `Encoder` is the interface, `cut_windows` chooses the boundaries,
`PieceTokeniser` wraps a tokenizer.json that never truncates or pads, and `WordPieceEncoder` is the base of the encoders
that bring such a tokeniser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
from tokenizers import Tokenizer

from services.encoders.manifest import Manifest, verify_file
from services.encoders.query_table import make_piece_formatter
from services.encoders.vectors import DenseArray, SparseVector
from services.errors import ConfigurationError, InvalidInput
from services.text_encoding import replace_surrogates

PieceOffsets = Sequence[tuple[int, int]]
_SENTENCE_ENDS = frozenset(".!?…。！？؟।")


class Encoder(Protocol):
    """A document encoder. `encode` is deterministic, and a vector depends on its window alone."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def fingerprint(self) -> str: ...

    def windows(self, text: str, pieces: int | None = None, overlap: int | None = None) -> list[TextWindow]:
        """Cut a text into windows, see `cut_windows`. Sizes default to the manifest's.

        Raises InvalidInput (`bad_window`) when a window would not fit the model.
        """
        ...

    def encode(self, windows: Sequence[TextWindow]) -> list[SparseVector]:
        """Return one vector a window, in order. The vector of a window without pieces is empty.

        Raises InvalidInput (`not_finite_weights`, with the position as `window`) when the model gives NaN or infinity.
        """
        ...

    def piece(self, piece_id: int) -> str:
        """Return the piece of a vocabulary id, as people read it."""
        ...

    def token(self, piece_id: int) -> str:
        """Return the piece of a vocabulary id, as the tokeniser writes it ("Ġword", "▁word")."""
        ...


@runtime_checkable
class JointEncoder(Encoder, Protocol):
    """A document encoder whose pass also gives dense vectors (`models.projection.encoder`)."""

    def encode_jointly(self, windows: Sequence[TextWindow]) -> tuple[list[SparseVector], DenseArray]:
        """Return one sparse vector and one dense unit vector a window, in order: a list and [windows, width].

        Raises InvalidInput as `encode`, and `not_finite_scores` for a dense vector of NaN or infinity.
        """
        ...


@dataclass(frozen=True, slots=True)
class TextWindow:
    """A window: characters `start` to `end` (exclusive) of a text, and the ids of its pieces without special pieces.

    Text without pieces (white space, control characters) makes a window without ids.
    """

    start: int
    end: int
    piece_ids: tuple[int, ...]


def cut_windows(
    text: str, piece_ids: Sequence[int], offsets: PieceOffsets, pieces: int, overlap: int
) -> list[TextWindow]:
    """Cut a text into windows of at most `pieces` pieces that share `overlap` / 2 to `overlap` pieces with the next.

    `offsets` has the characters (start, end) of each piece in `text`, in order. A window ends where a sentence or line
    ends in the last eighth of its pieces, otherwise between words, otherwise anywhere. The next window begins in the
    overlap by the same rule. Every character belongs to a window: characters between two pieces belong to the piece
    before them. An empty text has no window. Takes time linear in the text.

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


def _best_cut(text: str, offsets: PieceOffsets, candidates: range) -> int:
    """Return the first candidate that begins a sentence or line, else the first that begins a word, else the first."""
    word = None
    for index in candidates:
        if _is_sentence_start(text, offsets, index):
            return index
        if word is None and _is_word_start(offsets, index):
            word = index
    return candidates[0] if word is None else word


def _is_sentence_start(text: str, offsets: PieceOffsets, index: int) -> bool:
    """Check whether a sentence or line ends just before the piece `index`."""
    before, after = offsets[index - 1][1], offsets[index][0]
    if "\n" in text[before:after]:
        return True
    last = text[before - 1 : before]
    return last in _SENTENCE_ENDS and (after > before or last in "。！？")


def _is_word_start(offsets: PieceOffsets, index: int) -> bool:
    return offsets[index][0] > offsets[index - 1][1]


def trim_offsets(text: str, offsets: PieceOffsets) -> list[tuple[int, int]]:
    """Remove white space at the ends of pieces and overlap between pieces from their offsets, for `cut_windows`.

    A piece of white space becomes empty at its start. Several pieces may be bytes of one character; the character
    belongs to the first of them. Takes time linear in the text.
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


class PieceTokeniser:
    """A tokeniser that cuts texts into windows. Threads may share it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # "[SEP]" in a document is five characters, not the model's separator.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._display = make_piece_formatter(tokenizer)
        # WordPiece drops white space; pieces of other tokenisers include the space before a word.
        self._spaced = type(tokenizer.model).__name__ != "WordPiece"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a tokenizer.json. Raises ConfigurationError (`bad_tokenizer`)."""
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises bare Exception
            raise ConfigurationError("bad_tokenizer", f"{path} is not a usable tokenizer.json: {error}") from None

    def windows(self, text: str, pieces: int, overlap: int) -> list[TextWindow]:
        """Cut a text into windows, see `cut_windows`. A surrogate half counts as one unknown character."""
        clean = replace_surrogates(text)
        encoding = self._tokenizer.encode(clean, add_special_tokens=False)
        offsets = trim_offsets(clean, encoding.offsets) if self._spaced else encoding.offsets
        return cut_windows(clean, encoding.ids, offsets, pieces, overlap)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the piece ids of each whole text, without special pieces."""
        encodings = self._tokenizer.encode_batch_fast(
            [replace_surrogates(text) for text in texts], add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]

    def id_of(self, piece: str) -> int:
        """Return the vocabulary id of a piece. Raises ConfigurationError (`bad_tokenizer`) when it has none."""
        piece_id = self._tokenizer.token_to_id(piece)
        if piece_id is None:
            raise ConfigurationError("bad_tokenizer", f"The tokeniser has no piece {piece!r}.")
        return int(piece_id)

    def piece(self, piece_id: int) -> str:
        """Return the piece of an id, formatted like pieces of the query table; `#id` outside the vocabulary."""
        piece = self._tokenizer.id_to_token(piece_id)
        return f"#{piece_id}" if piece is None else self._display(piece)

    def token(self, piece_id: int) -> str:
        """Return the piece of an id as the tokeniser writes it; `#id` outside the vocabulary."""
        return self._tokenizer.id_to_token(piece_id) or f"#{piece_id}"

    def vocabulary(self) -> dict[str, int]:
        """Return all pieces with their ids."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))


class WordPieceEncoder:
    """Base of encoders with a tokenizer.json: windows, pieces and fingerprint, without the model."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Raises ConfigurationError for a missing, changed or unusable tokeniser."""
        self.manifest = manifest
        self._pieces = PieceTokeniser.load(verify_file(directory, manifest, "tokenizer.json"))

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def piece(self, piece_id: int) -> str:
        return self._pieces.piece(piece_id)

    def token(self, piece_id: int) -> str:
        return self._pieces.token(piece_id)

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
    """Make the vector of a window from the model's k heaviest pieces.

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
