"""Tests of vector reuse: which stored vectors a new version of a document takes over, and where its write goes."""

from typing import Any

import pytest

from services.documents.document import encoded_version, raw_version
from services.encoders.manifest import DenseIdentity, WindowSettings
from services.encoders.vectors import SparseVector
from services.index_spec import EncoderIdentity, Generation, IndexSpec
from services.opensearch.bulk import Write
from services.opensearch.journal import attempt_write, dead_write, encoded_write, retry_write, vector_state
from services.opensearch.stored_document import EncodedWindow, StoredDocument
from services.opensearch.vector_reuse import reuse_vectors

VECTOR = SparseVector.of([3, 5, 9], [1.0, 2.0, 0.5])
WINDOWS = [{"start": 0, "end": 3, "vector": VECTOR.pack()}]
FINGERPRINT = "a" * 16
DENSE = DenseIdentity(
    name="d",
    fingerprint="d" * 16,
    width=2,
    pooling="mean",
    normalised=True,
    window=WindowSettings(pieces=64, overlap=0),
)


def generation(**more: Any) -> Generation:
    return Generation(
        index="docs", number=1, physical="p-docs.g000001", spec=IndexSpec(),
        encoder=EncoderIdentity(name="e", fingerprint=FINGERPRINT), window=WindowSettings(pieces=64, overlap=0),
        created_at="2026-01-01T00:00:00+00:00", token="t1", **more,
    )  # fmt: skip


def raw(text: str = "old", **more: Any) -> Write:
    source = {
        "text": text,
        "state": "pending",
        "job": "new",
        "version": 8,
        "attempts": 0,
        "due_at": 9,
        "ingested_at": 5,
    }
    return Write("p-docs", "x", raw_version(8), source | more)


def encoded(**more: Any) -> StoredDocument:
    source = {
        "text": "old", "state": "encoded", "job": "before", "version": 7, "encoder": FINGERPRINT, "encoded_at": 2,
        "windows": WINDOWS, "metadata": {"price": 1},
    }  # fmt: skip
    return StoredDocument("x", encoded_version(7), source | more)


def test_a_write_of_the_same_text_is_stored_encoded() -> None:
    reused = reuse_vectors(generation(), raw(metadata={"price": 2}), encoded())
    assert reused.complete
    assert (reused.write.alias, reused.write.version) == (generation().write_alias, raw_version(8))
    assert reused.write.document() == {
        "text": "old", "state": "encoded", "job": "new", "version": 8, "attempts": 0, "ingested_at": 5,
        "metadata": {"price": 2}, "encoder": FINGERPRINT, "encoded_at": 2, "windows": WINDOWS,
        "sparse": VECTOR.features(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("of", "write", "before"),
    [
        (generation(), raw("new"), encoded()),
        (generation(), raw(title="new"), encoded()),
        (generation(), raw(), encoded(title="gone")),
        (generation(dense=DENSE), raw(), encoded(dense_error="encoding_failed")),
        (generation(dense=DENSE), raw(), encoded(dense="AAAA", dense_encoder="0" * 16)),
    ],
)
def test_another_text_keeps_the_earlier_vectors_until_it_is_encoded(
    of: Generation, write: Write, before: StoredDocument
) -> None:
    reused = reuse_vectors(of, write, before)
    assert not reused.complete
    assert reused.write.alias == of.write_alias, "the vectors belong to this generation"
    source = reused.write.document()
    assert (source["state"], source["sparse"], vector_state(source)) == ("pending", VECTOR.features(), "earlier")
    assert source["earlier"] == {"vectors": {"version": 7, "windows": WINDOWS}}
    assert "windows" not in source, "the offsets count in the earlier text"


@pytest.mark.parametrize(
    "before",
    [
        None,
        StoredDocument("x", raw_version(7), {"state": "deleted", "version": 7}),
        StoredDocument("x", raw_version(7), {"state": "pending", "text": "old", "version": 7}),
        StoredDocument("x", raw_version(7), {"state": "dead", "text": "old", "version": 7}),
        encoded(encoder="b" * 16),
    ],
)
def test_without_vectors_of_this_encoder_the_write_stays_as_it_is(before: StoredDocument | None) -> None:
    reused = reuse_vectors(generation(), raw("new"), before)
    assert (reused.write, reused.complete) == (raw("new"), False)


def test_earlier_vectors_pass_through_every_transition_and_go_with_the_encoding() -> None:
    pending = reuse_vectors(generation(dense=DENSE), raw("new"), encoded(dense="AAAA", dense_encoder=DENSE.fingerprint))
    for step in (
        lambda stored: attempt_write(generation(), stored, 1, 60),
        lambda stored: dead_write(generation(), stored, "encoding_failed", "no"),
        lambda stored: retry_write(generation(), stored, 60),
    ):
        stored = StoredDocument("x", pending.write.version, stored_form(pending.write))
        write = step(stored)
        assert write.document()["sparse"] == VECTOR.features()
        assert write.source["earlier"]["vectors"]["windows"] == WINDOWS
        assert write.source["dense"] == "AAAA"
    newer = reuse_vectors(generation(), raw("newest"), StoredDocument("x", write.version, stored_form(write)))
    assert newer.write.source["earlier"] == {"vectors": {"version": 7, "windows": WINDOWS}}
    other = SparseVector.of([1], [1.0])
    done = encoded_write(
        generation(), StoredDocument("x", raw_version(8), stored_form(newer.write)), [EncodedWindow(0, 3, other)]
    )
    assert done.document()["sparse"] == other.features()
    assert not {"earlier", "dense", "dense_encoder"} & done.source.keys()


def stored_form(write: Write) -> dict[str, Any]:
    """Return the source as OpenSearch gives it back: the search fields are excluded."""
    return {name: value for name, value in write.document().items() if name not in ("sparse", "window_vectors")}
