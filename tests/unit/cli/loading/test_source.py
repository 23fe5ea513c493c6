"""Rows of files and their positions, for any batch size, start position and damage."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from backports import zstd
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cli.loading import source
from cli.loading.arguments import open_sources
from cli.loading.field_map import DocumentMapper, FieldMap, parse_field_map
from cli.loading.source import DocumentMaker, FileFormat, LoadSource, Refusal, SourceBatch, SourcePosition, read_batches
from services.documents import compressed_lines
from services.errors import ConfigurationError, InvalidInput, SparsewellError
from services.index_spec import FieldType

FIELDS: dict[str, FieldType] = {
    "year": "number", "open": "boolean", "printed": "date", "genre": "keyword", "blurb": "text",
}  # fmt: skip
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd.compress,
}  # fmt: skip
LINES = b'{"id":"1"}\n\n  \n{bad\r\n{"id":"2"}\n"text"\n{"id":"3"}'


def one(path: Path, mapped: FieldMap | None = None, **options: Any) -> LoadSource:
    (found,) = open_sources([path], options.get("format"), options.get("delimiter"), mapped or FieldMap())
    return found


def mapper(*pairs: str, id_from: str | None = None, fields: dict[str, FieldType] | None = None) -> DocumentMapper:
    return DocumentMapper(parse_field_map(pairs, id_from), FIELDS if fields is None else fields)


def batches(
    path: Path, make: DocumentMaker | None = None, size: int = 100, start: SourcePosition | None = None
) -> list[SourceBatch]:
    return list(read_batches(one(path), start or SourcePosition(), make or mapper(), size, 10**6))


def documents(path: Path, make: DocumentMaker | None = None) -> list[tuple[int, dict[str, Any]]]:
    return [(number, orjson.loads(line)) for batch in batches(path, make) for number, line in batch.lines]


def refusals(path: Path, make: DocumentMaker | None = None) -> list[Refusal]:
    return [refusal for batch in batches(path, make) for refusal in batch.refusals]


def codes(path: Path, make: DocumentMaker | None = None) -> list[tuple[int, str]]:
    return [(refusal.line, refusal.code) for refusal in refusals(path, make)]


def goes_on_from_anywhere(path: Path, make: DocumentMaker, size: int) -> None:
    """Check that a read that starts at the end of any batch gives exactly the remaining rows."""
    whole = batches(path, make, size)
    for at, batch in enumerate(whole):
        later = batches(path, make, size, batch.end)
        for part in ("lines", "refusals"):
            rest = [entry for one in later for entry in getattr(one, part)]
            assert rest == [entry for one in whole[at + 1 :] for entry in getattr(one, part)]


@pytest.mark.parametrize("compression", PACKERS)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_lines_keep_their_numbers_in_any_batches(tmp_path: Path, compression: str, size: int) -> None:
    path = tmp_path / f"a.jsonl{compression}"
    path.write_bytes(PACKERS[compression](LINES))
    found = batches(path, size=size)
    lines = [line for batch in found for line in batch.lines]
    assert lines == [(1, b'{"id":"1"}'), (4, b"{bad"), (5, b'{"id":"2"}'), (6, b'"text"'), (7, b'{"id":"3"}')]
    assert all(len(batch.lines) <= size for batch in found)
    assert found[-1].end == SourcePosition(0, 7, len(LINES))
    assert found[-1].read == path.stat().st_size
    goes_on_from_anywhere(path, mapper(), size)


def test_batches_are_bounded_by_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([b"x" * 40] * 5 + [b"y" * 500] + [b"z" * 40]))
    found = read_batches(one(path), SourcePosition(), mapper(), 100, 100)
    assert [len(batch.lines) for batch in found] == [2, 2, 1, 1, 1]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id":"1"}\n\xef\xbb\xbf{"id":"2"}\n')
    (batch,) = batches(path)
    assert batch.lines == [(1, b'{"id":"1"}'), (2, b'\xef\xbb\xbf{"id":"2"}')]
    assert batch.end.offset == path.stat().st_size


def test_an_empty_file_is_one_batch_without_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert [batch.lines for batch in batches(tmp_path / "a.jsonl")] == [[]]


@pytest.mark.parametrize("compression", [name for name in PACKERS if name])
@pytest.mark.parametrize("damage", ["cut", "garbage", "middle"])
def test_a_damaged_archive_is_refused_after_what_it_gave(tmp_path: Path, compression: str, damage: str) -> None:
    path = tmp_path / f"a.jsonl{compression}"
    noise = random.Random(1)
    rows = "".join(json.dumps({"id": str(n), "noise": noise.random()}) + "\n" for n in range(20_000)).encode()
    whole = PACKERS[compression](rows)
    middle = len(whole) // 2
    damaged = {
        "cut": whole[:-20], "garbage": b"no archive at all", "middle": whole[:middle] + bytes(64) + whole[middle:],
    }  # fmt: skip
    path.write_bytes(damaged[damage])
    found = batches(path)
    given = [line for batch in found for _, line in batch.lines]
    # gzip detects damage at the end of the file by a checksum, so rows after the damage may be wrong.
    assert given[:5000] == rows.splitlines()[: len(given[:5000])]
    (refusal,) = [refusal for batch in found for refusal in batch.refusals]
    assert refusal.code == "damaged_file"
    assert str(path) in refusal.reason


@pytest.mark.parametrize("compression", PACKERS)
def test_a_line_without_end_does_not_take_the_memory(tmp_path: Path, compression: str) -> None:
    """A reader of the whole line would hold 80 MB; the limit is 8 MiB a line."""
    path = tmp_path / f"bomb.jsonl{compression}"
    path.write_bytes(PACKERS[compression](b'{"id":"1"}\n' + b"x" * 80_000_000 + b'\n{"id":"2"}\n'))
    tracemalloc.start()
    found = batches(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [line for batch in found for line in batch.lines] == [(1, b'{"id":"1"}'), (3, b'{"id":"2"}')]
    assert codes(path) == [(2, "line_too_long")]
    assert peak < 4 * source.MAX_RECORD_BYTES


def test_an_archive_that_wants_gigabytes_to_unpack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(lzma.compress(LINES, preset=9))
    monkeypatch.setattr(compressed_lines, "MAX_MEMORY_BYTES", 1024**2)
    assert codes(path) == [(1, "damaged_file")]


def test_files_one_after_the_other_in_an_archive_are_all_read(tmp_path: Path) -> None:
    for compression, pack in PACKERS.items():
        path = tmp_path / f"a.jsonl{compression}"
        path.write_bytes(pack(b'{"id":"1"}\n') + pack(b'{"id":"2"}\n'))
        assert [number for number, _ in documents(path)] == [1, 2]


def test_what_export_wrote_is_read_without_its_state(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"id":"1","text":"a","version":3,"state":"encoded","encoder":"f","windows":[]}\n'
        '{"id":"2","text":"a","state":"Bavaria","version":3}\n'
    )
    assert documents(path) == [
        (1, {"id": "1", "text": "a", "version": 3}),
        (2, {"id": "2", "text": "a", "state": "Bavaria", "version": 3}),  # the service refuses the member
    ]


# CSV


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12),
    size=st.integers(1, 5),
    end=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from(",\t;"),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_what_a_csv_writer_wrote_comes_back_from_any_place(
    tmp_path: Path, rows: list[tuple[str, str, str]], size: int, end: str, delimiter: str
) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator=end, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("id", "title", "text"), *rows])
    seen: list[dict[str, str]] = []

    class Seeing(DocumentMapper):
        def __call__(self, record: Any) -> bytes:
            seen.append(dict(record))
            return orjson.dumps(record)

    make = Seeing(FieldMap(), {})
    made = one(path, delimiter=delimiter)
    whole = list(read_batches(made, SourcePosition(), make, size, 10**6))
    assert seen == [dict(zip(("id", "title", "text"), row, strict=True)) for row in rows]
    for at, batch in enumerate(whole):
        later = list(read_batches(one(path, delimiter=delimiter), batch.end, make, size, 10**6))
        assert [line for b in later for line in b.lines] == [line for b in whole[at + 1 :] for line in b.lines]


def test_a_row_is_named_by_the_line_on_which_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"two\nlines ""quoted"""\n\n2,b\n')
    assert documents(path) == [
        (2, {"id": "1", "text": 'two\nlines "quoted"'}),
        (5, {"id": "2", "text": "b"}),
    ]


def test_bad_rows_are_refused_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"id,text,year\n"
        b"1,a,1999\n"
        b"2,ragged\n"
        b"3,caf\xe9,1\n"
        b'4,"a"b,1\n'
        b"5,nul\0,1\n"
        b"6,a,MCMXC\n"
        b"7,many,1,2\n"
        b"8,good,2e3\n"
        b'9,"never closed,1\n'
    )
    assert [document["id"] for _, document in documents(path)] == ["1", "8"]
    assert codes(path) == [
        (3, "ragged_row"), (4, "not_utf8"), (5, "bad_row"), (6, "not_text"), (7, "bad_value"), (8, "ragged_row"),
        (10, "bad_row"),
    ]  # fmt: skip
    found = {refusal.line: refusal for refusal in refusals(path)}
    assert found[4].reason.startswith("Line 4, byte 6 is 0xe9, which is not UTF-8")
    assert found[7].id == "6"
    assert "'MCMXC' is not a number" in found[7].reason


def test_a_quote_that_is_never_closed_costs_a_bounded_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.loading.tabular.MAX_RECORD_BYTES", 2000)
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"open\n' + "".join(f"{n},row\n" for n in range(2, 1000)))
    assert codes(path) == [(2, "line_too_long")]
    found = [int(document["id"]) for _, document in documents(path)]
    assert found == list(range(found[0], 1000))
    assert found[0] < 300


def test_a_field_over_any_size_is_one_refused_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n1,a\n2," + b"x" * (source.MAX_RECORD_BYTES + 1) + b"\n3," + b"y" * 200_000 + b"\n")
    assert [number for number, _ in documents(path)] == [2, 4]
    assert codes(path) == [(3, "line_too_long")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "no_header"),
        (b"\n\n", "no_header"),
        (b"id,text,id\n1,2,3\n", "duplicate_column"),
        (codecs.BOM_UTF16_LE + "id,text\n".encode("utf-16-le"), "not_utf8"),
        ("id,text\n".encode("utf-16-be"), "not_text"),
        (b"id,t\xe9xt\n", "not_utf8"),
        (b'id,"text\n1,2\n', "bad_row"),
    ],
)
def test_a_header_that_cannot_be_is_found_out_first(tmp_path: Path, text: bytes, code: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text)
    with pytest.raises(InvalidInput) as caught:
        one(path)
    assert caught.value.code == code
    assert str(path) in caught.value.detail
    good = tmp_path / "b.csv"
    good.write_text("id,text\n1,a\n")
    bad, fine = open_sources([path, good], None, None, FieldMap())  # the other files are loaded
    assert [r.code for b in read_batches(bad, SourcePosition(), mapper(), 9, 999) for r in b.refusals] == [code]
    assert [n for b in read_batches(fine, SourcePosition(), mapper(), 9, 999) for n, _ in b.lines] == [2]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (gzip.compress(b"id,text\n1,a\n", mtime=0), "gzip-compressed"),
        (zstd.compress(b"id,text\n1,a\n"), "zstd-compressed"),
        ("id,text\n1,a\n".encode("utf-16"), "UTF-16"),
        ("id,text\n1,a\n".encode("utf-16-be"), "UTF-16"),
        ("id,text\n1,a\n".encode("utf-32"), "UTF-32"),
        ("id,tëxt\n".encode("latin-1"), "probably Latin-1"),
        ("id,“text”\n".encode("cp1252"), "probably Windows-1252"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_bytes_that_are_not_utf8_are_called_what_they_are(tmp_path: Path, name: str, text: bytes, named: str) -> None:
    path = tmp_path / name
    path.write_bytes(text)
    if name == "a.csv":
        with pytest.raises(InvalidInput) as caught:
            one(path)
        reason = caught.value.detail
    else:
        (reason,) = (refusal.reason for batch in batches(path) for refusal in batch.refusals)
    assert named in reason


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize("data", [b"\xef\xbb\xbf", b"\0" * 50, b"\xff" * 50, b'"' * 51, bytes(range(256))])
def test_no_bytes_are_unforeseen(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(b"id,text\n1,a\n" + data)
    for batch in batches(path):
        assert all(refusal.code for refusal in batch.refusals)


# opening


def test_a_header_of_very_many_columns_is_judged_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"c{n}" for n in range(300_000)) + "\n")
    assert len(one(path).columns() or []) == 300_000
    with pytest.raises(ConfigurationError, match="c0, c1") as caught:
        one(path, parse_field_map(["text=body"], None))
    assert len(caught.value.detail) < 1000


def test_what_a_file_holds_is_told_by_its_name_or_by_an_option(tmp_path: Path) -> None:
    path = tmp_path / "data.dat"
    path.write_text("id;text\n1;a\n")
    with pytest.raises(ConfigurationError, match="--format") as caught:
        one(path)
    assert caught.value.code == "unknown_format"
    assert one(path, format=FileFormat.csv, delimiter=";").columns() == ["id", "text"]
    for wrong in ("", ";;", "\n", '"'):
        with pytest.raises(ConfigurationError, match="--delimiter"):
            one(path, format=FileFormat.csv, delimiter=wrong)
    assert one(path, format=FileFormat.jsonl).columns() is None


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.csv.gz", "below/missing.tsv"])
def test_a_file_that_is_not_there_is_found_out_first(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        one(tmp_path / name)
    assert caught.value.code == "unreadable_file"


def test_a_mapped_column_that_is_not_there_is_found_out_first(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ISBN,name\n1,a\n")
    one(path, parse_field_map(["id=ISBN", "text=name"], None))
    with pytest.raises(ConfigurationError, match="ISBN, name") as caught:
        one(path, parse_field_map(["text=body"], None))
    assert caught.value.code == "unknown_column"


def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(ConfigurationError, match="not a regular file") as caught:
        one(tmp_path / "a.jsonl")
    assert caught.value.code == "unreadable_file"


# maps


def test_columns_become_documents() -> None:
    make = mapper("id=ISBN", "title=name", "text=description,notes", "metadata.year=published", "metadata.genre=a,b")
    row = {"ISBN": "9", "name": "T", "description": "D", "notes": "N", "published": "1895", "a": "x", "b": "y", "z": 1}
    assert orjson.loads(make(row)) == {
        "id": "9", "title": "T", "text": "D\n\nN", "metadata": {"year": 1895, "genre": ["x", "y"]},
    }  # fmt: skip
    assert list(make.unused) == ["z"]
    assert orjson.loads(make(row | {"notes": "", "published": "", "a": ""}))["text"] == "D"


def test_what_is_not_mapped_takes_the_column_of_its_name() -> None:
    row = {"id": "1", "text": "a", "version": "7", "year": "2", "metadata.genre": "x", "other": "o"}
    assert orjson.loads(mapper()(row)) == {
        "id": "1", "text": "a", "version": 7, "metadata": {"year": 2, "genre": "x"},
    }  # fmt: skip


def test_an_export_s_own_words_are_no_metadata() -> None:
    fields: dict[str, FieldType] = {"state": "keyword", "encoder": "keyword", "year": "number"}
    row = {"id": "1", "text": "a", "state": "encoded", "encoder": "0123", "metadata": '{"state": "Ohio"}', "year": "7"}
    assert orjson.loads(mapper(fields=fields)(row))["metadata"] == {"state": "Ohio", "year": 7}
    # Control: in a user's own table, the same columns are metadata fields.
    del row["metadata"]
    assert orjson.loads(mapper(fields=fields)(row))["metadata"] == {"state": "encoded", "encoder": "0123", "year": 7}


def test_members_of_objects_have_dotted_names() -> None:
    make = mapper("text=body.plain", "metadata.year=when.year")
    row = {"id": 5, "body": {"plain": "a"}, "when": {"year": 3}, "metadata": {"genre": ["x"]}, "a.b": 1}
    assert orjson.loads(make(row)) == {"id": "5", "text": "a", "metadata": {"genre": ["x"], "year": 3}}
    assert orjson.loads(mapper("text=a.b")(row))["text"] == "1"


def test_an_id_from_the_content_is_stable_and_tells_documents_apart() -> None:
    make = mapper(id_from="@content")
    first, again, other = (orjson.loads(make(row))["id"] for row in ({"text": "a"}, {"text": "a"}, {"text": "b"}))
    assert first == again != other
    assert orjson.loads(mapper(id_from="key")({"key": "k", "text": "a"}))["id"] == "k"


@pytest.mark.parametrize(
    ("pairs", "id_from"),
    [
        (["text"], None), (["text="], None), (["=a"], None), (["body=a"], None), (["metadata.=a"], None),
        (["id=a,b"], None), (["version=a,b"], None), (["text=a", "text=b"], None), (["id=a"], "b"),
        (["id=a"], "@content"),
    ],
)  # fmt: skip
def test_a_map_that_cannot_be_is_refused(pairs: list[str], id_from: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_field_map(pairs, id_from)
    assert caught.value.code == "bad_map"


def test_a_column_with_a_comma_is_quoted() -> None:
    assert parse_field_map(['text="a,b",c'], None).targets == {"text": ("a,b", "c")}


def test_a_map_to_an_undeclared_field_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="declares no") as caught:
        mapper("metadata.pages=p")
    assert caught.value.code == "undeclared_metadata"


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("year", "12", 12), ("year", " -3 ", -3), ("year", "1.50", 1.5), ("year", "1e3", 1000.0), ("year", ".5", 0.5),
        ("year", "123456789012345678901234567890", 1.2345678901234568e29),
        ("open", "TRUE", True), ("open", "0", False), ("printed", "2026-11-24", "2026-11-24"),
        ("printed", "2026-11-24 09:30:00", "2026-11-24T09:30:00"),
        ("printed", "2026-11-24T09:30:00.5Z", "2026-11-24T09:30:00.5Z"), ("genre", "007", "007"), ("blurb", " x", " x"),
    ],
)  # fmt: skip
def test_text_is_converted_where_there_is_one_reading(field: str, text: str, value: object) -> None:
    assert orjson.loads(mapper()({"id": "1", "text": "a", field: text}))["metadata"] == {field: value}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("year", "1,234"), ("year", "NaN"), ("year", "inf"), ("year", "12 km"), ("year", "0x10"), ("year", "1_000"),
        ("open", "yes"), ("open", "2"), ("printed", "24.11.2026"), ("printed", "11/24/26"), ("printed", "2026-02-30"),
        ("printed", "1764000000"), ("version", "1.5"), ("version", "new"),
    ],
)  # fmt: skip
def test_what_has_several_readings_is_refused(field: str, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        mapper()({"id": "1", "text": "a", field: text})
    assert (caught.value.code, caught.value.extra["id"]) == ("bad_value", "1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["id", "title", "text", "version", "metadata", *FIELDS]), JSON))
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_values_become_a_document_or_a_refusal(row: dict[str, Any]) -> None:
    try:
        document = orjson.loads(mapper()(row))
    except SparsewellError as error:
        assert isinstance(error, InvalidInput)
        return
    assert isinstance(document, dict)


def test_mapped_json_lines_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"key": 1, "body": "a"}\n[1]\n{"key": 2.5, "body": "b"}\n{bad\n')
    field_map = parse_field_map(["id=key", "text=body"], None)
    found = list(read_batches(one(path, field_map), SourcePosition(), DocumentMapper(field_map, {}), 9, 999))
    assert [line for batch in found for line in batch.lines] == [(1, b'{"id":"1","text":"a"}')]
    assert [(r.line, r.code) for batch in found for r in batch.refusals] == [
        (2, "not_an_object"), (3, "bad_value"), (4, "invalid_json"),
    ]  # fmt: skip


def test_bytes_and_positions_of_a_compressed_file_move_the_bar(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    text = io.StringIO()
    csv.writer(text).writerows([("id", "text"), *((n, f"{n * 7919 % 100_003:x}" * 20) for n in range(20_000))])
    path.write_bytes(gzip.compress(text.getvalue().encode()))
    read = [batch.read for batch in batches(path)]
    assert read == sorted(read)
    assert read[-1] == path.stat().st_size
    assert len(set(read)) > 3
