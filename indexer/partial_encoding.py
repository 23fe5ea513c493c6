"""Partial encodings: the windows of a long text that are encoded so far, kept in Redis between two tasks.

A text of 1 MiB has about 1,200 windows, which is a minute of work and more. A task that has no time for the rest saves
the encoded windows and sends the document on; the next worker continues after them. A partial encoding is only a saving
of work: if Redis loses it, the next task encodes the whole text without a pause, because it would lose the next part as
well. The chapters of a talk are kept with its
windows, which depend on them. See docs/decisions/0248.
"""

import base64
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import orjson

from indexer.encoding import MAX_RUN_WINDOWS, EncodedDocument, EncodingFailure, WindowedDocument, encode_run
from models.encoder import Encoder
from services.encoders.vectors import DenseArray, SparseVector
from services.errors import BackendUnavailable, Overloaded
from services.index_spec import Generation
from services.opensearch.stored_document import EncodedWindow, StoredDocument
from services.queue.messages import Publisher
from services.talk.model import Chaptering

log = logging.getLogger(__name__)

# A load may hold up the rest of a message for hours. A part of 1,200 windows takes about 1 MB.
KEPT_SECONDS = 86_400


def encode_long_document(
    encoder: Encoder,
    document: WindowedDocument,
    max_windows: int = MAX_RUN_WINDOWS,
    *,
    jointly: bool = False,
    before: EncodedDocument | None = None,
    may_continue: Callable[[], bool] = lambda: True,
) -> EncodedDocument | EncodingFailure:
    """Encode a document that may have thousands of windows, in runs of at most `max_windows`.

    `jointly`: see `encode_run`. `before`: the first windows, which are encoded already. `may_continue` is called before
    each run; once it returns False, the result has only the windows so far.
    """
    encoded = [] if before is None else list(before.windows)
    dense = [] if before is None or before.dense is None else [before.dense]
    for at in range(len(encoded), len(document.windows), max_windows):
        if not may_continue():
            break
        part = replace(document, windows=document.windows[at : at + max_windows])
        (outcome,) = encode_run(encoder, [part], jointly=jointly)
        if isinstance(outcome, EncodingFailure):
            return outcome
        encoded += outcome.windows
        if outcome.dense is not None:
            dense.append(outcome.dense)
    return EncodedDocument(document.stored, encoded, document.chaptering, np.concatenate(dense) if dense else None)


@dataclass(frozen=True, slots=True)
class PartialEncodings:
    """The partial encodings of one generation.

    An entry belongs to one external version, so a document that was written, requeued or counted since has none.
    """

    publisher: Publisher
    generation: Generation

    def load(self, stored: StoredDocument) -> EncodedDocument | None:
        """Return the windows that are encoded so far; None if there are none, or while Redis does not answer."""
        try:
            raw = self.publisher.read_value(self._key(stored))
        except (BackendUnavailable, Overloaded):
            return None
        if raw is None:
            return None
        entry = orjson.loads(raw)
        windows = [EncodedWindow(start, end, SparseVector.unpack(vector)) for start, end, vector in entry["windows"]]
        chaptering = None if entry["chaptering"] is None else Chaptering.read(entry["chaptering"])
        return EncodedDocument(stored, windows, chaptering, _read_dense(entry, len(windows)))

    def save(self, stored: StoredDocument, encoded: EncodedDocument) -> bool:
        """Keep the windows that are encoded so far. Return False if Redis did not take them."""
        entry = {
            "windows": [[window.start, window.end, window.vector.pack()] for window in encoded.windows],
            "chaptering": None if encoded.chaptering is None else encoded.chaptering.fields(),
            "dense": None
            if encoded.dense is None
            else base64.b64encode(np.asarray(encoded.dense, "<f4").tobytes()).decode(),
        }
        try:
            self.publisher.write_value(self._key(stored), orjson.dumps(entry), KEPT_SECONDS)
        except (BackendUnavailable, Overloaded) as error:
            log.warning("%s: a long text of %s is encoded without a pause", error.code, self.generation.physical)
            return False
        return True

    def _key(self, stored: StoredDocument) -> str:
        identity = f"{self.generation.token}\0{self.generation.encoder.fingerprint}\0{stored.id}\0{stored.external}"
        return f"sparsewell:partial:{hashlib.sha256(identity.encode()).hexdigest()}"


def _read_dense(entry: dict[str, str | None], rows: int) -> DenseArray | None:
    text = entry["dense"]
    return None if text is None else np.frombuffer(base64.b64decode(text), "<f4").reshape(rows, -1)
