"""Which columns of a batch are no negatives of a query: its other answers, and passages that stand there twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.training.pairs import PairSet

Mask = NDArray[np.bool_]


class Positives:
    """Every link of a set, to be asked for many (query, passage) at once."""

    def __init__(self, pairs: PairSet) -> None:
        self._width = max(1, len(pairs.passages))
        self._known = np.unique(self._keys(pairs.query_rows, pairs.passage_rows))

    def holds(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> Mask:
        """Whether the passage answers the query, for each element of the two arrays, which are broadcast.

        Rows below 0 (no query, no passage) answer nothing.
        """
        queries, passages = np.broadcast_arrays(query_rows, passage_rows)
        if not self._known.size:
            return np.zeros(queries.shape, dtype=np.bool_)
        keys = self._keys(queries, passages)
        places = np.minimum(np.searchsorted(self._known, keys), self._known.size - 1)
        found: Mask = (self._known[places] == keys) & (queries >= 0) & (passages >= 0)
        return found

    def _keys(self, query_rows: NDArray[np.integer], passage_rows: NDArray[np.integer]) -> NDArray[np.int64]:
        return query_rows.astype(np.int64) * self._width + passage_rows


def left_out(
    positives: Positives,
    query_rows: NDArray[np.integer],
    passage_rows: NDArray[np.integer],
    own: NDArray[np.integer] | None = None,
) -> Mask:
    """Bool [B, M]: the columns that a query's loss and targets must leave out.

    `query_rows` [B] and `passage_rows` [M] are rows of the set of `positives`; `own` [B] is each query's column (0 to
    B-1 when absent). Left out are other known answers of the query (false negatives), every further copy of a passage
    that stands in the batch more than once, and columns with row -1 (no passage). A query's own column never is.
    """
    queries, passages = np.asarray(query_rows), np.asarray(passage_rows)
    columns = np.arange(queries.size) if own is None else np.asarray(own)
    mask = positives.holds(queries[:, None], passages[None, :])
    first = np.zeros(passages.size, dtype=np.bool_)
    first[np.unique(passages, return_index=True)[1]] = True
    mask |= ~first | (passages < 0)
    # The first copy of a query's own passage is a known answer, hence masked already when its own column is a later
    # one; a query whose own passage is no known link would have it twice.
    mask |= passages[None, :] == passages[columns][:, None]
    mask[np.arange(queries.size), columns] = False
    return mask
