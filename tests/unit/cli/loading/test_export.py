"""The parts of `sparsewell export` that need no service."""

from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from cli.loading.export import (
    ExportFormat,
    choose_format,
    open_writer,
    read_page,
    require_complete_export,
    write_atomically,
)
from services.errors import BackendUnavailable, ConfigurationError, InvalidInput
from services.opensearch.export import (
    ExportPosition,
)
from services.opensearch.export import (
    read_export_page as read_hits,
)

PLACE = ExportPosition("p-books.g000001", "snapshot", 3, 2**40, ("pending", "dead"), True, 2, 17, 99)


def test_a_cursor_round_trips() -> None:
    for place in (PLACE, ExportPosition("p-books.g000001", "s", 1, 0, ("encoded",), False)):
        assert ExportPosition.read(place.cursor(b"key"), b"key") == place


def test_a_cursor_sealed_with_another_key_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        ExportPosition.read(PLACE.cursor(b"key"), b"another")
    assert caught.value.code == "bad_cursor"


def test_documents_of_another_index_are_refused() -> None:
    hits = [{"_index": "p-others.g000001", "_id": "x", "sort": [1], "_source": {}}]
    with pytest.raises(InvalidInput):
        read_hits(PLACE, 10, {"hits": {"hits": hits}})


def test_a_short_page_is_the_last_page_of_a_shard() -> None:
    hits = [{"_index": PLACE.physical, "_id": "x", "sort": [n], "_source": {}} for n in (18, 23)]
    _, later = read_hits(PLACE, 2, {"hits": {"hits": hits}, "pit_id": "renewed"})
    assert (later.shard, later.after, later.exported, later.point_in_time, later.ended) == (
        2,
        23,
        101,
        "renewed",
        False,
    )
    _, end = read_hits(later, 3, {"hits": {"hits": hits}})
    assert (end.shard, end.after, end.exported, end.ended) == (3, None, 103, True)


def page(count: int, told: int) -> bytes:
    last = {"export": {"documents": told, "exported": told, "total": told, "cursor": None}}
    return b"".join(b'{"id":"%d"}\n' % n for n in range(count)) + orjson.dumps(last) + b"\n"


def test_a_page_that_is_cut_anywhere_is_refused() -> None:
    content = page(3, 3)
    assert len(read_page(content)[0]) == 3
    for length in range(len(content)):
        with pytest.raises(BackendUnavailable):
            read_page(content[:length])
    for wrong in (page(2, 3), page(4, 3), content + b"{}\n", b"\n", b'{"export": 1}\n', b"[1]\n", b"\xff\n"):
        with pytest.raises(BackendUnavailable):
            read_page(wrong)


def test_missing_documents_are_an_error() -> None:
    require_complete_export(5, {"exported": 5, "total": 5})
    for told in ({"exported": 5, "total": 6}, {"exported": 4, "total": 4}):
        with pytest.raises(BackendUnavailable, match="start again"):
            require_complete_export(5, told)


def test_the_file_name_decides_the_format() -> None:
    assert choose_format(Path("a.parquet"), None) is ExportFormat.parquet
    assert choose_format(Path("a.jsonl.gz"), None) is choose_format(None, None) is ExportFormat.jsonl
    assert choose_format(Path("a.dat"), ExportFormat.parquet) is ExportFormat.parquet
    for output, given in (
        (None, ExportFormat.parquet),
        (Path("a.parquet.gz"), ExportFormat.parquet),
        (Path("a.xz"), None),
    ):
        with pytest.raises(ConfigurationError) as caught:
            choose_format(output, given)
        assert caught.value.code == "bad_output"


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as out:
        out.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    with write_atomically(path) as out:
        out.write(b"whole")
        assert path.read_text() == "earlier"
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConfigurationError, match="cannot be written"), write_atomically(tmp_path / "no" / "a.jsonl"):
        pass


def test_a_parquet_file_has_a_column_for_each_member(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    window = {"start": 0, "end": 3, "ids": [5], "pieces": ["a"], "weights": [0.5]}
    lines = [
        b'{"id":"1","text":"a","metadata":{"year":1,"tags":["x"]},"version":3,"state":"pending"}',
        orjson.dumps({"id": "2", "text": "b", "version": 4, "state": "encoded", "encoder": "f", "windows": [window]}),
    ]
    with open_writer(path, parquet=True, vectors=True) as writer:
        writer.write(lines)
        writer.write([])
    first, second = pq.read_table(path).to_pylist()
    assert first["metadata"] == '{"year":1,"tags":["x"]}'
    assert (first["title"], first["version"], first["windows"]) == (None, 3, None)
    assert second["windows"] == [window]
    with open_writer(path, parquet=True, vectors=False) as writer:
        writer.write(lines[:1])
    assert "windows" not in pq.read_table(path).column_names
