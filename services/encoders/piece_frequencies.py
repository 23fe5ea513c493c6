"""Document frequencies of an encoder's pieces, and the factors that adapt a query table to one index.

A query table weighs a piece by its worth in the texts that the encoder was trained on. In an index of one subject the
subject's words are in most documents, so they tell few of them apart. The weight of a piece is therefore multiplied by
the ratio of its inverse document frequency in the index to that in a reference corpus (docs/decisions/0241). Both are
BM25's (Lucene's BM25Similarity.idf): ln(1 + (N - n + .5) / (n + .5)) for a piece in n of N documents.
"""

import base64
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from services.errors import ConfigurationError

FactorArray = npt.NDArray[np.float64]
_STORED_NUMBER: Final = np.dtype("<u4")

# The fewest documents that an index is adapted to. The smallest collection, of 82 documents, gained 8.7 points of
# NDCG@10; samples of 20 lost 3.2 on another (docs/decisions/0241).
MIN_DOCUMENTS: Final = 80
# Bounds of a factor, and the number added to both inverse document frequencies, so that a piece of every document keeps
# some weight.
SMALLEST_FACTOR: Final = 0.1
LARGEST_FACTOR: Final = 2.0
SMOOTHING: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class PieceFrequencies:
    """The number of documents that hold each piece, of `documents` documents.

    `ids` and `counts` (both [n]) list the pieces that at least one document holds, by ascending id.
    """

    documents: int
    ids: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def idf(self, vocabulary: int) -> FactorArray:
        """Return the inverse document frequencies of all pieces [vocabulary], in nats."""
        found = np.zeros(vocabulary)
        found[self.ids] = self.counts
        return np.log1p((self.documents - found + 0.5) / (found + 0.5))

    def factors(self, reference: "PieceFrequencies", vocabulary: int) -> FactorArray:
        """Return the factors of all pieces' query weights [vocabulary]: the clipped ratios of idf to the reference's.

        Raises ConfigurationError (`bad_frequencies`) for a piece outside the vocabulary.
        """
        for frequencies in (self, reference):
            if len(frequencies.ids) and int(frequencies.ids[-1]) >= vocabulary:
                raise _bad_frequencies(f"they name the piece {int(frequencies.ids[-1])} of {vocabulary:,}")
        ratios = (self.idf(vocabulary) + SMOOTHING) / (reference.idf(vocabulary) + SMOOTHING)
        return np.clip(ratios, SMALLEST_FACTOR, LARGEST_FACTOR)

    @classmethod
    def combine(cls, weighted: Sequence[tuple["PieceFrequencies", int]]) -> Self:
        """Return the frequencies of several indexes as one, of all their documents.

        `weighted`: the frequencies of each index's sample, and the number of its documents. Counts are rounded.
        """
        ids = np.unique(np.concatenate([frequencies.ids for frequencies, _ in weighted]))
        counts = np.zeros(len(ids))
        for frequencies, documents in weighted:
            scale = documents / max(1, frequencies.documents)
            counts[np.searchsorted(ids, frequencies.ids)] += frequencies.counts * scale
        return cls(sum(documents for _, documents in weighted), ids, np.maximum(1, counts.round()).astype(np.int64))

    def pack(self) -> dict[str, Any]:
        """Return the form in which frequencies are stored: JSON, with the compressed ids and counts in base64."""
        numbers = np.concatenate([self.ids, self.counts]).astype(_STORED_NUMBER)
        return {"documents": self.documents, "counts": base64.b64encode(zlib.compress(numbers.tobytes())).decode()}

    @classmethod
    def unpack(cls, members: Mapping[str, Any]) -> Self:
        """Read the stored form. Raises ConfigurationError (`bad_frequencies`)."""
        try:
            documents = int(members["documents"])
            numbers = np.frombuffer(zlib.decompress(base64.b64decode(members["counts"], validate=True)), _STORED_NUMBER)
            ids, counts = numbers.astype(np.int64).reshape(2, -1)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise _bad_frequencies(f"they cannot be read ({type(error).__name__})") from None
        if np.any(np.diff(ids) <= 0):
            raise _bad_frequencies("their pieces are not in ascending order")
        if documents < 0 or (len(counts) and not 0 < counts.min() <= counts.max() <= documents):
            raise _bad_frequencies("a count is not from 1 to the number of documents")
        return cls(documents, ids, counts)


@dataclass(slots=True)
class PieceCounter:
    """Counts the documents that hold each piece."""

    documents: int = 0
    _counts: Counter[int] = field(default_factory=Counter)

    def add(self, piece_ids: Iterable[int]) -> None:
        """Count one document by the ids of its pieces. Repeated ids count once."""
        self.documents += 1
        self._counts.update(set(piece_ids))

    def frequencies(self) -> PieceFrequencies:
        """Return the frequencies of the documents counted so far."""
        ids = np.array(sorted(self._counts), np.int64)
        return PieceFrequencies(self.documents, ids, np.array([self._counts[i] for i in ids.tolist()], np.int64))


def _bad_frequencies(reason: str) -> ConfigurationError:
    return ConfigurationError("bad_frequencies", f"The stored frequencies of pieces are damaged: {reason}.")
