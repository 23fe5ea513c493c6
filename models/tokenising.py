"""An encoder's own tokeniser: whole texts to pieces with character offsets, never truncated, never padded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer

from models.windows import Window, cut_windows
from services.errors import ConfigurationError


class Pieces:
    """Cuts texts into windows of pieces. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # A document that speaks about "[SEP]" means five characters, not the model's separator.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer

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
        return cut_windows(clean, encoding.ids, encoding.offsets, pieces, overlap)

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
        """The piece of a vocabulary id, `##` kept; an id outside the vocabulary is shown as `#id`."""
        return self._tokenizer.id_to_token(piece_id) or f"#{piece_id}"

    def vocabulary(self) -> dict[str, int]:
        """Every piece with its id."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))


def _well_formed(text: str) -> str:
    """The text with every surrogate half replaced by one character, so that offsets stay right."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
