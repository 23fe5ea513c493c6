"""An encoder's own tokeniser: whole texts to pieces with character offsets, never truncated, never padded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer

from models.windows import Offsets, Window, cut_windows
from services.errors import ConfigurationError
from services.pieces import piece_display


class Pieces:
    """Cuts texts into windows of pieces. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # A document that speaks about "[SEP]" means five characters, not the model's separator.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._display = piece_display(tokenizer)
        # BERT's splitting leaves white space out; pieces of other tokenisers carry the space before a word.
        self._spaced = type(tokenizer.model).__name__ != "WordPiece"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a tokenizer.json. Raises ConfigurationError (`bad_tokenizer`)."""
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises bare Exception
            raise ConfigurationError("bad_tokenizer", f"{path} is no usable tokenizer.json: {error}") from None

    def windows(self, text: str, pieces: int, overlap: int) -> list[Window]:
        """The windows of a text, see `cut_windows`. A surrogate half counts as one unknown character."""
        clean = _well_formed(text)
        encoding = self._tokenizer.encode(clean, add_special_tokens=False)
        offsets = without_space(clean, encoding.offsets) if self._spaced else encoding.offsets
        return cut_windows(clean, encoding.ids, offsets, pieces, overlap)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The piece ids of each whole text, without special pieces."""
        encodings = self._tokenizer.encode_batch_fast([_well_formed(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def id_of(self, piece: str) -> int:
        """The vocabulary id of a piece. Raises ConfigurationError (`bad_tokenizer`) when it has none."""
        found = self._tokenizer.token_to_id(piece)
        if found is None:
            raise ConfigurationError("bad_tokenizer", f"The tokeniser has no piece {piece!r}.")
        return int(found)

    def piece(self, piece_id: int) -> str:
        """The piece of a vocabulary id as `services.pieces` shows it; an id outside the vocabulary is `#id`."""
        piece = self._tokenizer.id_to_token(piece_id)
        return f"#{piece_id}" if piece is None else self._display(piece)

    def vocabulary(self) -> dict[str, int]:
        """Every piece with its id."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))


def _well_formed(text: str) -> str:
    """The text with every surrogate half replaced by one character, so that offsets stay right."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def without_space(text: str, offsets: Offsets) -> list[tuple[int, int]]:
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
