"""BM25 as a teacher: a passage's vector holds its BM25 weights, a query's holds ones, their dot product is the score.

The form is Lucene's: idf = ln(1 + (N - df + .5) / (df + .5)), tf / (tf + k1 (1 - b + b length / average)), without the
constant factor k1 + 1; a query's repeated word counts once.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.training.pairs import texts_fingerprint
from models.training.vectors import SparseRows
from services.errors import ConfigurationError, InvalidInput
from services.extra import needs

K1, B = 1.2, 0.75
_BATCH = 1024


class Tokens(Protocol):
    """Cuts texts into numbered tokens, repeated ones and all. `name` says which way, `fingerprint` exactly which."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def learn(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of a collection; tokens that were never seen get numbers."""
        ...

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts; what no `learn` has seen is left out."""
        ...


class WordTokens:
    """Words of two letters or more, lower case, without stop words, stemmed: bm25s with a Snowball stemmer."""

    def __init__(self, language: str = "english", stop_words: str = "english") -> None:
        """`language` is a Snowball stemmer, `stop_words` a list of bm25s. Raises ConfigurationError
        (`missing_library`)."""
        bm25s, stemmer = _library("bm25s"), _library("Stemmer")
        self._tokenizer = bm25s.tokenization.Tokenizer(stopwords=stop_words, stemmer=stemmer.Stemmer(language))
        self.name = "words"
        self.fingerprint = f"words/{language}/{stop_words}/{bm25s.__version__}"

    def learn(self, texts: Sequence[str]) -> list[list[int]]:
        return self._ids(texts, True)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return self._ids(texts, False)

    def _ids(self, texts: Sequence[str], learn: bool) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer.tokenize(
            texts, update_vocab=learn, show_progress=False, allow_empty=False
        )
        return found


class PieceTokens:
    """The pieces of an encoder's tokenizer.json, so that the teacher's words are those of the student."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError (`bad_tokenizer`)."""
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise ConfigurationError("bad_tokenizer", f"{path} is no usable tokenizer.json: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.name = "pieces"
        self.fingerprint = f"pieces/{texts_fingerprint([self._tokenizer.to_str()])}"

    def learn(self, texts: Sequence[str]) -> list[list[int]]:
        return self(texts)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        # (a half of a surrogate, which the tokeniser cannot take, is a question mark)
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        return [one.ids for one in self._tokenizer.encode_batch(clean, add_special_tokens=False)]


class Bm25Teacher:
    """BM25 with the statistics of one collection, see the module's text. Vectors are `SparseRows` over the tokens."""

    def __init__(self, passages: Sequence[str], tokens: Tokens, *, k1: float = K1, b: float = B) -> None:
        """Reads the whole collection. Raises InvalidInput (`bad_bm25`) for k1 below 0 and b outside [0, 1]."""
        if not (k1 >= 0 and np.isfinite(k1) and 0 <= b <= 1):
            raise InvalidInput("bad_bm25", f"BM25 takes k1 of 0 or more and b from 0 to 1, not {k1} and {b}.")
        self._tokens, self._k1, self._b = tokens, k1, b
        frequency = np.zeros(0, dtype=np.int64)
        length = 0
        for start in range(0, len(passages), _BATCH):
            counted = _counted(tokens.learn(passages[start : start + _BATCH]))
            length += int(counted.weights.sum())
            found = np.bincount(counted.ids, minlength=frequency.size)
            found[: frequency.size] += frequency
            frequency = found
        count = len(passages)
        self._average = length / count if length else 1.0
        self._idf = np.log1p((count - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        self.name = f"bm25-{tokens.name}"
        self.fingerprint = texts_fingerprint([tokens.fingerprint, f"{k1} {b}", texts_fingerprint(passages)])

    def encode_queries(self, texts: Sequence[str]) -> SparseRows:
        counted = _counted(self._tokens(texts))
        known = counted.ids < self._idf.size
        lengths = np.bincount(_owners(counted)[known], minlength=len(counted))
        return SparseRows.of(lengths, counted.ids[known], np.ones(int(known.sum()), dtype=np.float32))

    def encode_passages(self, texts: Sequence[str]) -> SparseRows:
        """Passages of the collection or others, whose new tokens are left out but count in their length."""
        counted = _counted(self._tokens(texts))
        owners = _owners(counted)
        length = np.bincount(owners, counted.weights, minlength=len(counted))
        norm = self._k1 * (1 - self._b + self._b * length / self._average)
        known = counted.ids < self._idf.size
        ids, owners, times = counted.ids[known], owners[known], counted.weights[known]
        weights = self._idf[ids] * times / (times + norm[owners])
        return SparseRows.of(np.bincount(owners, minlength=len(counted)), ids, weights.astype(np.float32))


def _counted(token_ids: Sequence[Sequence[int]]) -> SparseRows:
    """Distinct tokens of each text in ascending order, with how often they stand there."""
    lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
    flat = np.fromiter((token for ids in token_ids for token in ids), dtype=np.int64, count=int(lengths.sum()))
    width = int(flat.max(initial=0)) + 1
    keys, times = np.unique(np.repeat(np.arange(lengths.size), lengths) * width + flat, return_counts=True)
    return SparseRows.of(
        np.bincount(keys // width, minlength=lengths.size),
        (keys % width).astype(np.int32),
        times.astype(np.float32),
    )


def _owners(rows: SparseRows) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(rows)), np.diff(rows.indptr))


def _library(name: str) -> Any:
    with needs(name, "score with BM25 over words", "train"):
        return importlib.import_module(name)
