"""Dense vectors of documents that have their sparse ones. A failure costs the document only these. Pure."""

import logging
from collections.abc import Sequence

import numpy as np

from models.dense.model import DenseModel
from models.windows import Window
from services.dense_form import DenseIdentity
from services.dense_vectors import gathered, pack
from services.documents import joined_text
from services.errors import SparsewellError
from services.opensearch.journal import DenseOutcome, Stored
from services.telemetry.metrics import DENSE_FAILURES

log = logging.getLogger(__name__)


def dense_outcomes(model: DenseModel, identity: DenseIdentity, documents: Sequence[Stored]) -> list[DenseOutcome]:
    """The stored form of each document's dense vectors, all windows in one run.

    When the run raises, each document is encoded by itself, so that only the one at fault goes without. It stays
    searchable by word and by its sparse vectors: the reason is written down with it.
    """
    if not documents:
        return []
    try:
        cut = [_windows(model, identity, stored) for stored in documents]
        vectors = model.encode_windows([window for windows in cut for window in windows])
        ends = np.cumsum([len(windows) for windows in cut])[:-1]
        return [DenseOutcome(pack(gathered(of_one))) for of_one in np.split(vectors, ends)]
    except Exception as error:
        if len(documents) > 1:
            return [outcome for stored in documents for outcome in dense_outcomes(model, identity, [stored])]
        code = error.code if isinstance(error, SparsewellError) else "encoding_failed"
        log.warning("document %r has no dense vectors: %s", documents[0].id, error)
        DENSE_FAILURES.labels(code).inc()
        return [DenseOutcome(error=code) for _ in documents]


def _windows(model: DenseModel, identity: DenseIdentity, stored: Stored) -> list[Window]:
    return model.windows(joined_text(stored.source.get("title", ""), stored.source["text"]), identity.window)
