"""Candidates for mining out of an index of ours, in any mode: what its searches find now must be told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.training.pairs import PairSet, Rows
from models.training.ranking import NONE

Search = Callable[[Sequence[str], int], Sequence[Sequence[str]]]


def passage_id(text: str) -> str:
    """The id under which a passage of a pair set is kept in an index, so that hits can be told to be its passages."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def passage_documents(pairs: PairSet) -> Iterator[dict[str, str]]:
    """The documents to load into an index that is to give candidates."""
    for text in pairs.passages:
        yield {"id": passage_id(text), "text": text}


class IndexCandidates:
    """Lists from an index that holds `passage_documents`; hits that are no passage of the set are passed over.

    `search` asks several queries and gives the ids of at most `depth` hits of each, best first. `fingerprint` must
    change when the index would answer otherwise.
    """

    def __init__(self, pairs: PairSet, search: Search, *, name: str, fingerprint: str) -> None:
        self.name, self.fingerprint = name, fingerprint
        self._queries, self._search = pairs.queries, search
        self._rows: Mapping[str, int] = {passage_id(text): row for row, text in enumerate(pairs.passages)}

    def best(self, query_rows: NDArray[np.integer], depth: int) -> Rows:
        found = np.full((query_rows.size, depth), NONE, dtype=np.int32)
        answers = self._search([self._queries[row] for row in query_rows.tolist()], depth)
        for place, ids in enumerate(answers):
            rows = [self._rows[one] for one in ids if one in self._rows][:depth]
            found[place, : len(rows)] = rows
        return found
