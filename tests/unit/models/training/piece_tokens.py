"""A tokeniser for the BM25 teacher that needs no package of an extra."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer


class PieceTokens:
    """Tokeniser of the pieces of a tokenizer.json."""

    name = "pieces"

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.encode_special_tokens = True
        self.fingerprint = f"pieces/{path}"

    def learn(self, texts: Sequence[str]) -> list[list[int]]:
        return self(texts)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
