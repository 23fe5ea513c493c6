"""Documents of Markdown, HTML, text and Parquet files and of directories."""

import gzip
import os
import socket
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.loading.arguments import open_sources
from cli.loading.field_map import DocumentMapper, FieldMap, parse_field_map
from cli.loading.source import MAX_RECORD_BYTES, FileFormat, LoadSource, SourceBatch, SourcePosition, read_batches
from cli.loading.text_files import read_html, read_markdown
from services.errors import ConfigurationError, InvalidInput
from services.index_spec import FieldType

FIELDS: dict[str, FieldType] = {"tags": "keyword", "date": "date", "year": "number", "open": "boolean"}


def one(path: Path, *pairs: str, given: FileFormat | None = None) -> LoadSource:
    (found,) = open_sources([path], given, None, parse_field_map(pairs, None))
    return found


def batches(source: LoadSource, *pairs: str, size: int = 100, start: SourcePosition | None = None) -> list[SourceBatch]:
    make = DocumentMapper(parse_field_map(pairs, None), FIELDS)
    return list(read_batches(source, start or SourcePosition(), make, size, 10**6))


def documents(source: LoadSource, *pairs: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for batch in batches(source, *pairs) for _, line in batch.lines]


def refusals(source: LoadSource, *pairs: str) -> list[tuple[str | None, int | None, str]]:
    return [(one.file, one.line, one.code) for batch in batches(source, *pairs) for one in batch.refusals]


def goes_on_from_anywhere(path: Path, *pairs: str) -> None:
    for size in (1, 2, 5):
        whole = batches(one(path), *pairs, size=size)
        for at, batch in enumerate(whole):
            later = batches(one(path), *pairs, size=size, start=batch.end)
            for part in ("lines", "refusals"):
                rest = [entry for b in later for entry in getattr(b, part)]
                assert rest == [entry for b in whole[at + 1 :] for entry in getattr(b, part)]


# directories


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    for name, content in {
        "b.txt": b"plain words",
        "a.md": b"---\ntags: [x, y]\ndate: 2026-11-24\nauthor: me\n---\n# Title\n\nBody.\n",
        "guide/page.html": b"<title>Page</title><script>no()</script><p>Read me.",
        "guide/packed.md.gz": gzip.compress(b"# Packed\n\nText."),
        "guide/latin.txt": b"line\ncaf\xe9",
        "guide/null.txt": b"a\0b",
        "guide/empty.md": b" \n",
        "guide/damaged.md.gz": b"no gzip",
        "guide/huge.txt": b"x" * (MAX_RECORD_BYTES + 1),
        "guide/bomb.txt.gz": gzip.compress(b"x" * (MAX_RECORD_BYTES * 8)),
        "guide/data.csv": b"id,text\n",
        "guide/.hidden.md": b"# no",
        ".git/config.txt": b"no",
        "é ü/ñ.txt": b"\xef\xbb\xbfBOM",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_a_directory_is_read_in_order_and_what_cannot_be_is_named(tree: Path) -> None:
    source = one(tree)
    assert documents(source) == [
        {
            "id": "a.md",
            "title": "Title",
            "text": "Body.\n",
            "metadata": {"tags": ["x", "y"], "date": "2026-11-24"},
        },
        {"id": "b.txt", "text": "plain words"},
        {"id": "guide/packed.md.gz", "title": "Packed", "text": "Text."},
        {"id": "guide/page.html", "title": "Page", "text": "Read me."},
        {"id": "é ü/ñ.txt", "text": "BOM"},
    ]
    assert refusals(source) == [
        ("guide/bomb.txt.gz", None, "file_too_large"),
        ("guide/damaged.md.gz", None, "damaged_file"),
        ("guide/empty.md", None, "empty_file"),
        ("guide/huge.txt", None, "file_too_large"),
        ("guide/latin.txt", None, "not_utf8"),
        ("guide/null.txt", None, "not_text"),
    ]
    reasons = [one.reason for batch in batches(source) for one in batch.refusals if one.code == "not_utf8"]
    assert reasons[0].startswith("Line 2, byte 4 is 0xe9")
    assert source.notes() == [f"Skipped in {tree}: 2 hidden, 1 of other formats."]
    assert batches(source)[-1].read == source.size
    goes_on_from_anywhere(tree)


def test_links_lead_neither_in_circles_nor_out_of_the_directory_nor_to_hidden_files(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "o.txt").write_text("outside")
    (tree / "guide" / "up").symlink_to(tree)
    (tree / "self").symlink_to(tree / "self")
    (tree / "broken.md").symlink_to(tree / "nowhere")
    (tree / "one").symlink_to(outside)
    (tree / "passwd.txt").symlink_to("/etc/passwd")
    (tree / "relative.txt").symlink_to(Path("..") / "outside" / "o.txt")
    (tree / "secret.txt").symlink_to(tree / ".git" / "config.txt")
    (tree / "again.txt").symlink_to(tree / "b.txt")
    os.mkfifo(tree / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket.txt"))
        source = one(tree)
        names = [document["id"] for document in documents(source)]
    assert names == ["a.md", "again.txt", "b.txt", "guide/packed.md.gz", "guide/page.html", "é ü/ñ.txt"]
    (note,) = source.notes()
    assert "1 links to directories that are read anyway" in note
    assert "4 links out of the directory or to hidden files" in note
    assert "broken links and special files" in note


def test_a_directory_that_is_a_link_itself_is_read(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    assert documents(one(tmp_path / "link")) == documents(one(tree))


def test_the_version_of_a_page_is_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\nversion: 3\nid: mine\n---\n# Page\n\nText.\n")
    source = one(tmp_path)
    assert documents(source) == [{"id": "a.md", "title": "Page", "text": "Text.\n"}]
    make = DocumentMapper(parse_field_map([], None), {"version": "number", "id": "keyword"})
    (batch,) = read_batches(source, SourcePosition(), make, 10, 10**6)
    assert [orjson.loads(line)["metadata"] for _, line in batch.lines] == [{"version": 3, "id": "mine"}]
    assert not make.unused
    assert documents(source, "version=front_matter.version")[0]["version"] == 3


def test_a_name_that_is_no_utf8_is_refused_by_name(tree: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tree) + b"/caf\xe9.txt"))).write_text("words")
    assert ("caf\\udce9.txt", None, "not_utf8") in refusals(one(tree))


def test_a_directory_of_great_depth_is_walked(tmp_path: Path) -> None:
    root = tmp_path / "deep"
    here = root
    for _ in range(300):
        here = here / "d"
    here.mkdir(parents=True)
    (here / "x.txt").write_text("deep")
    assert [document["id"] for document in documents(one(root))] == ["d/" * 300 + "x.txt"]


def test_a_changed_file_changes_the_identity(tree: Path) -> None:
    before = one(tree).identity()
    assert one(tree).identity() == before
    (tree / "b.txt").write_text("other")
    changed = one(tree).identity()
    (tree / "new.md").write_text("x")
    assert len({before, changed, one(tree).identity()}) == 3


def test_files_that_are_named_are_one_source_by_their_given_names(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    paths = [Path("b.txt"), Path("guide/page.html"), Path("guide/data.csv"), Path("a.md")]
    texts, table, more = open_sources(paths, None, None, FieldMap())
    assert [document["id"] for document in documents(texts)] == ["b.txt", "guide/page.html"]
    assert table.columns() == ["id", "text"]
    assert [document["id"] for document in documents(more)] == ["a.md"]
    assert documents(one(Path("a.md"), given=FileFormat.text))[0]["text"].startswith("---")
    with pytest.raises(ConfigurationError) as caught:
        open_sources([tree, tree / "guide"], None, None, FieldMap())
    assert caught.value.code == "two_directories"


# Markdown and HTML


def test_front_matter_is_columns() -> None:
    found = read_markdown("---\ntitle: T\nid: 7\nyear: 1895\n---\n# Head\n\nBody # not a heading\n")
    assert found == {"title": "T", "front_matter.id": 7, "year": 1895, "text": "Body # not a heading\n"}


@pytest.mark.parametrize(
    ("text", "title", "rest"),
    [
        ("# Head\nbody", "Head", "body"), ("\n\n## Head ##\r\n\r\nbody", "Head", "body"),
        ("Head\n====\n\nbody", "Head", "body"),
        ("```\n# no\n```\nHead\n---\nx", "Head", "```\n# no\n```\nHead\n---\nx"),
        ("~~~sh\n# no\n```\n# no\n~~~\n# Yes\nx", "Yes", "~~~sh\n# no\n```\n# no\n~~~\n# Yes\nx"),
        ("# only", "only", "# only"), ("no heading", "", "no heading"), ("- a\n---\nb", "", "- a\n---\nb"),
        ("---\nrule\n---\nx", "rule", "---\nrule\n---\nx"), ("#hashtag\n", "", "#hashtag\n"), ("", "", ""),
        ("---\n---\nx", "", "x"),
    ],
)  # fmt: skip
def test_the_first_heading_is_the_title(text: str, title: str, rest: str) -> None:
    assert read_markdown(text) == {"title": title, "text": rest}


@pytest.mark.parametrize(
    "front",
    ["a: &x [1]\nb: *x", "{", "[" * 5000, "a: b: c", "a: 2020-99-99", "!!python/object:os.system {}", "a: \x01"],
)
def test_front_matter_that_cannot_be_is_refused(front: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_markdown(f"---\n{front}\n---\nbody")
    assert caught.value.code == "bad_front_matter"


@given(st.text(st.sampled_from("-#=`~ab:\n \r\t[]{}&*|>'\""), max_size=60))
def test_any_text_is_markdown_or_refused(text: str) -> None:
    try:
        found = read_markdown(text)
    except InvalidInput as error:
        assert error.code == "bad_front_matter"
        return
    assert set(found) >= {"title", "text"}


PAGE = """<!doctype html><html><head><title>A &amp;
 B</title><style>p{}</style></head><body><nav>menu</nav><h1>Head</h1>
<p>one <b>two</b>
three</p>tail <div>a</div>b<ul><li>x<li>y</ul><pre>  keep
    this</pre>after<script>alert("no")</script> end<table><tr><td>1<td>2<tr><td>3</table>
<p hidden>no</p><noscript>no</noscript><p>a&nbsp;b &lt;c&gt;</body></html>"""


def test_a_page_is_its_main_text_in_reading_order() -> None:
    assert read_html(PAGE) == {
        "title": "A & B",
        "text": "Head\n\none two three\n\ntail\na\nb\n\nx\ny\n\n  keep\n    this\n\nafter end\n\n1 2\n3\n\na\xa0b <c>",
    }
    assert read_html("<body><h1>H</h1>no<main>yes<script>no</script></main>no") == {"title": "H", "text": "yes"}
    assert read_html("<main>a</main><main>b</main>")["text"] == "a\n\nb"
    assert read_html("plain") == {"title": "", "text": "plain"}


@pytest.mark.parametrize("text", ["", " ", "<!-- c -->", "<p", "<", "<title>x", "<script>only", "&#0;&#x110000;"])
def test_fragments_of_pages_are_read(text: str) -> None:
    assert set(read_html(text)) == {"title", "text"}


def test_a_page_of_nothing_but_tags_is_refused_before_it_takes_the_memory() -> None:
    with pytest.raises(InvalidInput, match="tags"):
        read_html("<p>a" * 2_000_000)


def test_a_page_that_is_too_deep_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_html("<div>" * 1_000_000 + "x")
    assert caught.value.code == "bad_html"


@given(st.text(st.sampled_from("<>/=\"'!-&;#abp \nhrdiv"), max_size=60))
def test_any_text_is_a_page_or_refused(text: str) -> None:
    try:
        assert set(read_html(text)) == {"title", "text"}
    except InvalidInput as error:
        assert error.code == "bad_html"


# Parquet


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_columns_of_every_kind_are_converted_or_refused(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        {
            "id": pa.array([1, 2, 3], pa.int32()),
            "text": ["a", "b", None],
            "tags": pa.array([["x", "y"], [], None], pa.list_(pa.string())),
            "date": pa.array([date(2026, 11, 24), None, date(1851, 1, 2)]),
            "year": pa.array([Decimal("1.5"), Decimal("2"), None], pa.decimal128(5, 2)),
            "open": [True, False, None],
            "embedding": [[0.1] * 64] * 3,
        },
    )
    source = one(path)
    make = DocumentMapper(FieldMap(), FIELDS)
    (batch,) = read_batches(source, SourcePosition(), make, 10, 10**6)
    assert [orjson.loads(line) for _, line in batch.lines] == [
        {"id": "1", "text": "a", "metadata": {"tags": ["x", "y"], "date": "2026-11-24", "year": 1.5, "open": True}},
        {"id": "2", "text": "b", "metadata": {"year": 2, "open": False}},
        {"id": "3", "metadata": {"date": "1851-01-02"}},
    ]
    assert list(make.unused) == ["embedding"]
    assert batch.read == path.stat().st_size


def test_nested_columns_are_reached_by_dotted_names(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    path = parquet(
        tmp_path / "a.parquet",
        {
            "key": pa.array(["a", "b"]).dictionary_encode(),
            "meta": [{"year": 7, "body": "x"}, {"year": None, "body": "y"}],
            "when": pa.array([int(moment.timestamp() * 10**9) + 1, None], pa.timestamp("ns", "UTC")),
            "raw": [b"\xff", b"x"],
        },
    )
    pairs = ("id=key", "text=meta.body", "metadata.year=meta.year", "metadata.date=when")
    assert documents(one(path, *pairs), *pairs) == [
        {"id": "a", "text": "x", "metadata": {"year": 7, "date": "2026-11-24T09:30:00+00:00"}},
        {"id": "b", "text": "y"},
    ]
    for column in ("meta", "raw"):
        wrong = ("id=key", f"text={column}")
        assert refusals(one(path, *wrong), *wrong) == [(None, 1, "bad_value"), (None, 2, "bad_value")]
    with pytest.raises(ConfigurationError) as caught:
        one(path, "text=body")
    assert caught.value.code == "unknown_column"


def test_row_groups_go_on_from_any_row(tmp_path: Path) -> None:
    ids = [f"r{n}" for n in range(300)]
    path = parquet(tmp_path / "a.parquet", {"id": ids, "text": ["words"] * 300}, row_group_size=70)
    assert [document["id"] for document in documents(one(path))] == ids
    for done in (1, 63, 64, 69, 70, 71, 140, 299, 300):
        rest = [line for batch in batches(one(path), start=SourcePosition(0, done)) for line in batch.lines]
        assert [orjson.loads(line)["id"] for _, line in rest] == ids[done:]
        assert [number for number, _ in rest] == list(range(done + 1, 301))
    goes_on_from_anywhere(parquet(tmp_path / "b.parquet", {"id": ids[:9], "text": ["w"] * 9}, row_group_size=4))


@pytest.mark.parametrize("damage", ["empty", "short", "other", "cut"])
def test_a_damaged_table_is_found_out_first(tmp_path: Path, damage: str) -> None:
    path = parquet(tmp_path / "a.parquet", {"id": ["1"], "text": ["a"]})
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "short": b"PAR1", "other": b"PAR1" + b"x" * 99 + b"PAR1", "cut": whole[:-9]}[damage]
    )
    with pytest.raises(InvalidInput) as caught:
        one(path)
    assert caught.value.code == "damaged_file"


def test_a_table_that_is_damaged_inside_gives_what_it_can(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        {"id": [f"r{n}" for n in range(200)], "text": [f"words {n}" for n in range(200)]},
        row_group_size=100, compression="gzip", use_dictionary=False,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    second = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[second + 40 : second + 60] = b"\xaa" * 20
    path.write_bytes(data)
    found = documents(one(path))
    assert [document["id"] for document in found] == [f"r{n}" for n in range(100)]
    assert refusals(one(path)) == [(None, 101, "damaged_file")]


def test_an_empty_table_is_an_empty_load(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"id": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    assert documents(one(path)) == []


def test_who_lacks_a_library_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] in ("pyarrow", "lxml", "yaml", "backports"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    import sys

    for name in list(sys.modules):
        if name.partition(".")[0] in ("pyarrow", "lxml", "yaml", "backports"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    for name, content in {"a.parquet": b"", "b.html": b"<p>", "c.md": b"---\na: 1\n---\n", "d.jsonl.zst": b"x"}.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"\.\[load\]") as caught:
            batches(one(path))
        assert caught.value.code == "missing_library"
