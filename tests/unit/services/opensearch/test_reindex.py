"""Tests of reindexing: a document's copy in each state, and the changes that a reindex reads."""

from typing import Any

import pytest

from services.documents.document import encoded_version, raw_version
from services.encoders.manifest import WindowSettings
from services.encoders.vectors import SparseVector
from services.errors import BackendUnavailable
from services.index_spec import EncoderIdentity, Generation, IndexSpec, WindowStorage
from services.opensearch.reindex import (
    ReindexRecord,
    ShardState,
    copy_write,
    incompatible_write,
    is_pending_write,
    read_changes,
    read_shard_states,
)
from services.opensearch.stored_document import MAX_NESTED_WINDOWS, TOO_MANY_WINDOWS, StoredDocument
from services.opensearch.vector_reuse import has_same_vectors


def generation(
    number: int, fingerprint: str = "a" * 16, pieces: int = 64, top_k: int = 512, windows: WindowStorage = "merged"
) -> Generation:
    return Generation(
        index="docs",
        number=number,
        physical=f"p-docs.g{number:06d}",
        spec=IndexSpec(document_top_k=top_k, windows=windows),
        encoder=EncoderIdentity(name="e", fingerprint=fingerprint),
        window=WindowSettings(pieces=pieces, overlap=0),
        created_at="2026-01-01T00:00:00+00:00",
        token=f"t{number}",
    )


VECTOR = SparseVector.of([3, 5, 9], [1.0, 2.0, 0.5])
OTHER = SparseVector.of([3], [4.0])
RAW: dict[str, Any] = {"text": "x", "title": "t", "version": 7, "job": "j", "ingested_at": 1, "metadata": {"a": 1}}
WINDOWS = [{"start": 0, "end": 1, "vector": VECTOR.pack()}]
OLD = generation(1)


def stored(state: str, external: int, **more: Any) -> StoredDocument:
    return StoredDocument("d", external, RAW | {"state": state} | more)


def test_valid_vectors_are_copied_and_pruned_again() -> None:
    one = stored("encoded", encoded_version(7), windows=WINDOWS, encoder="a" * 16)
    write = copy_write(OLD, generation(2, top_k=2), one, 60)
    assert (write.alias, write.version) == ("p-docs.g000002.wt2", encoded_version(7))
    assert write.document()["sparse"] == {"3": 1.0, "5": 2.0}
    assert write.source["windows"] == WINDOWS
    assert not is_pending_write(write)


@pytest.mark.parametrize(
    ("windows", "fields"),
    [("merged", {"sparse"}), ("nested", {"window_vectors"}), ("both", {"sparse", "window_vectors"})],
)
def test_search_fields_follow_the_target_s_declaration(windows: WindowStorage, fields: set[str]) -> None:
    packed = [{"start": 0, "end": 1, "vector": VECTOR.pack()}, {"start": 1, "end": 2, "vector": OTHER.pack()}]
    one = stored("encoded", encoded_version(7), windows=packed, encoder="a" * 16)
    source = copy_write(generation(1, windows="both"), generation(2, windows=windows), one, 60).document()
    assert {"sparse", "window_vectors"} & source.keys() == fields
    assert source.get("sparse", {}) in ({}, {"3": 4.0, "5": 2.0, "9": 0.5})
    assert source.get("window_vectors", []) in ([], [{"sparse": VECTOR.features()}, {"sparse": OTHER.features()}])
    assert source["windows"] == packed


def test_a_document_with_too_many_windows_is_dead_in_a_nested_target_only() -> None:
    windows = [{"start": 0, "end": 1, "vector": VECTOR.pack()}] * (MAX_NESTED_WINDOWS + 1)
    one = stored("encoded", encoded_version(7), windows=windows, encoder="a" * 16)
    nested = generation(2, windows="nested")
    dead = copy_write(OLD, nested, one, 60)
    assert (dead.version, dead.source["state"]) == (raw_version(7), "dead")
    assert (dead.source["error"]["code"], dead.source["dead_id"]) == (TOO_MANY_WINDOWS, "d")
    assert {name: dead.source[name] for name in RAW} == RAW
    assert not {"windows", "sparse", "window_vectors"} & dead.source.keys()
    again = copy_write(nested, generation(3), StoredDocument("d", dead.version, dead.source), 60)
    assert (again.version, again.source["state"]) == (raw_version(7), "pending")
    other = stored("dead", raw_version(7) + 3, error={"code": "attempts_exhausted", "reason": "r"})
    assert copy_write(nested, generation(3), other, 60).source["state"] == "dead"


@pytest.mark.parametrize("target", [generation(2, fingerprint="b" * 16), generation(2, pieces=32)])
@pytest.mark.parametrize("state", ["encoded", "pending", "dead"])
def test_another_encoder_or_window_gets_the_raw_document(target: Generation, state: str) -> None:
    assert not has_same_vectors(OLD, target)
    extra = {"windows": WINDOWS, "encoder": "a" * 16, "error": {"code": "c", "reason": "r"}, "attempts": 3}
    write = copy_write(OLD, target, stored(state, raw_version(7) + 5, **extra), 60)
    assert write.version == raw_version(7), "an encoding of it must be able to follow"
    assert {name: write.source[name] for name in RAW} == RAW
    assert (write.source["state"], write.source["attempts"]) == ("pending", 0)
    assert not {"windows", "sparse", "encoder", "error"} & write.source.keys()
    assert is_pending_write(write)


def test_dead_documents_stay_dead_with_the_same_encoder() -> None:
    one = stored("dead", raw_version(7) + 3, error={"code": "c", "reason": "r"}, attempts=3)
    write = copy_write(OLD, generation(2, top_k=2), one, 60)
    assert (write.version, write.source) == (raw_version(7) + 3, one.source)


def test_a_retry_is_newer_than_the_death_before_it() -> None:
    target = generation(2, top_k=2)
    dead = copy_write(OLD, target, stored("dead", raw_version(7) + 3, attempts=3), 60)
    again = copy_write(OLD, target, stored("pending", raw_version(7) + 4, attempts=0, earlier={"retries": 1}), 60)
    assert again.version > dead.version
    assert (again.source["state"], again.source["earlier"]) == ("pending", {"retries": 1})


def test_an_incompatible_document_keeps_its_text_and_the_reason() -> None:
    write = incompatible_write(OLD, generation(2), stored("pending", raw_version(7)))
    assert (write.version, write.source["state"], write.source["text"]) == (raw_version(7), "dead", "x")
    assert "metadata" not in write.source
    assert write.source["error"]["code"] == "misfit"


def test_an_unavailable_shard_is_an_error() -> None:
    numbers = {"max_seq_no": 9, "local_checkpoint": 9, "global_checkpoint": 9}
    copies = [{"routing": {"primary": True, "state": "STARTED"}, "seq_no": numbers}]
    with pytest.raises(BackendUnavailable, match="1 of 2"):
        read_shard_states({"indices": {"i": {"shards": {"0": copies}}}}, 2)


def test_a_tombstone_stays_a_tombstone() -> None:
    one = StoredDocument("d", raw_version(7), {"state": "deleted", "version": 7, "deleted_at": 5})
    for target in (generation(2), generation(2, fingerprint="b" * 16)):
        write = copy_write(OLD, target, one, 60)
        assert (write.version, write.source) == (raw_version(7), one.source)


def test_shards_are_read_from_their_primaries() -> None:
    def copy(primary: bool, safe: int) -> dict[str, Any]:
        numbers = {"max_seq_no": 9, "local_checkpoint": 9, "global_checkpoint": safe}
        return {"routing": {"primary": primary, "state": "STARTED"}, "seq_no": numbers}

    answer = {"indices": {"i": {"shards": {"0": [copy(False, 3), copy(True, 7)], "1": [copy(True, 9)]}}}}
    assert read_shard_states(answer, 2) == {0: ShardState(7, 9), 1: ShardState(9, 9)}
    for broken in ({}, {"indices": {"i": {"shards": {"0": [copy(False, 3)]}}}}):
        with pytest.raises(BackendUnavailable, match="shard_unavailable"):
            read_shard_states(broken, 1)


def test_changes_have_sequence_numbers() -> None:
    hit = {"_id": "d", "_version": 5, "_source": {"state": "pending"}, "sort": [12]}
    assert read_changes({"hits": {"hits": [hit]}}) == [(12, StoredDocument("d", 5, {"state": "pending"}))]


def talk(number: int, chapters: str = "tiling", fingerprint: str = "", *, titled: bool = False) -> Generation:
    spec = IndexSpec.model_validate({"talk": {"chapters": chapters, "titles_in_vectors": titled}})
    return generation(number).model_copy(update={"spec": spec, "chapters": fingerprint})


def episode(engine: str, **made: Any) -> StoredDocument:
    chapters = [
        {"number": 1, "title": "Whales", "start": 0, "end": 6},
        {"number": 2, "title": "Sea", "start": 6, "end": 9},
    ]
    windows = [
        {"start": 0, "end": 5, "vector": VECTOR.pack()},
        {"start": 4, "end": 8, "vector": OTHER.pack()},
        {"start": 8, "end": 11, "vector": OTHER.pack()},
    ]
    more = {"kind": "talk", "text": "one twoxy", "windows": windows, "chapters": chapters}
    return stored("encoded", encoded_version(7), chaptering={"engine": engine} | made, **more)


def test_search_fields_of_talk_are_built_again_from_the_source() -> None:
    source = copy_write(talk(1), talk(2), episode("tiling"), 60).document()
    first, second = source["chapters"]
    assert (first["words"], first["sparse"]) == ("Whales\none tw", {"3": 4.0, "5": 2.0, "9": 0.5})
    assert (second["words"], second["sparse"]) == ("Sea\noxy", {"3": 4.0})
    # The windows cover the title and the text, so offsets count both.
    assert [window["words"] for window in source["window_vectors"]] == ["t\none", "e tw", "oxy"]
    assert source["sparse"] == {"3": 4.0, "5": 2.0, "9": 0.5}


@pytest.mark.parametrize(
    ("one", "target", "again"),
    [
        (episode("tiling", fingerprint="c1"), talk(2), False),
        (episode("tiling", fingerprint="c1"), talk(2, fingerprint="c1"), False),
        (episode("tiling", fingerprint="c1"), talk(2, fingerprint="c2"), True),
        (episode("tiling", fingerprint="c1"), talk(2, "podtile"), True),
        (episode("tiling", fingerprint="c1"), talk(2, "none"), True),
        (episode("none"), talk(2, "none"), False),
        (episode("tiling", error={"code": "chapters_late"}), talk(2), True),
        (episode("given"), talk(2, "podtile", "c2"), False),
        (episode("given"), talk(2, titled=True), True),
        (stored("encoded", encoded_version(7), windows=WINDOWS), talk(2, "podtile", "c2"), False),
    ],
)
def test_talk_is_encoded_again_if_its_chapters_would_differ(
    one: StoredDocument, target: Generation, again: bool
) -> None:
    write = copy_write(talk(1), target, one, 60)
    assert is_pending_write(write) is again
    assert write.version == (raw_version(7) if again else encoded_version(7))
    assert ("chapters" in write.source) is (not again and "chapters" in one.source)


def test_raw_talk_members_are_copied_for_encoding() -> None:
    sent = {
        "kind": "talk",
        "description": "D",
        "segments": {"offsets": ""},
        "given": [{"number": 1, "title": "A", "start": 0, "end": 1}],
        "duration": 5.0,
        "url": "https://a",
        "talk_repairs": [{"code": "missing_ends", "detail": "x", "count": 1}],
    }
    made = {"chapters": [{"title": "Made"}], "chaptering": {"engine": "tiling"}, "chapter_titles": ["Made"]}
    one = stored("encoded", encoded_version(7), windows=WINDOWS, **sent, **made)
    write = copy_write(talk(1), talk(2, "podtile"), one, 60)
    assert is_pending_write(write)
    assert {name: write.source[name] for name in sent} == sent
    assert not made.keys() & write.source.keys()


def test_a_record_keeps_its_stored_names() -> None:
    record = ReindexRecord(
        index="docs", source=OLD, target=generation(2), copied=3, incompatible=1, incompatible_ids=["d"]
    )
    stored_record = record.model_dump(mode="json")
    assert (stored_record["carried"], stored_record["misfits"], stored_record["misfit_ids"]) == (3, 1, ["d"])
    assert not stored_record.keys() & {"copied", "incompatible", "incompatible_ids"}
    assert ReindexRecord.model_validate(stored_record) == record
