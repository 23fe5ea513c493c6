"""`sparsewell load` of every kind of source as a process, against a live API."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from infra.processes import ChildProcess

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Eventually = Callable[[Callable[[], object], float, str], None]
ROOT = Path(__file__).resolve().parents[3]
BOOKS = (
    "\ufeffISBN;name;description;notes;published;lent;shelf\r\n"
    '9-1;Moby Dick;"A whale; a captain;\r\nand an obsession.";classic;1851-10-18;true;A\r\n'
    "9-2;The Time Machine;A scientist travels far.;;1895-05-07;FALSE;B\r\n"
    "9-3;Bad;lent to whom;;1900-01-01;perhaps;C\r\n"
    "9-4;Ragged;row\r\n"
)
MAP = (
    "--map", "id=ISBN", "--map", "title=name", "--map", "text=description,notes", "--map", "metadata.printed=published",
    "--map", "metadata.lent=lent", "--map", "metadata.year=published",
)  # fmt: skip


def stored(api: httpx.Client, index: str, document_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/v1/indexes/{index}/documents/{document_id}").raise_for_status().json()
    return {name: found[name] for name in ("title", "text", "metadata") if name in found}


@pytest.mark.parametrize("via", ["api", "queue"])
def test_a_spreadsheet_is_loaded_through_a_map(
    load: Command, api: httpx.Client, worker: ChildProcess, tmp_path: Path, via: str
) -> None:
    path = tmp_path / "books.csv.gz"
    path.write_bytes(gzip.compress(BOOKS.encode()))
    refused = tmp_path / "refused.jsonl"
    done = load(
        path, "-i", "books", "--create", "--field", "printed=date", "--field", "lent=boolean", "--delimiter", ";",
        *MAP, "--via", via, "--rejected", refused,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == ["2 accepted, 2 rejected", "2 encoded"], done.stderr
    assert "Unused columns: shelf" in done.stderr
    assert api.get("/v1/indexes/books").json()["fields"] == {"printed": "date", "lent": "boolean", "year": "keyword"}
    assert stored(api, "books", "9-1") == {
        "title": "Moby Dick",
        "text": "A whale; a captain;\r\nand an obsession.\n\nclassic",
        "metadata": {"printed": "1851-10-18", "lent": True, "year": "1851-10-18"},
    }
    assert stored(api, "books", "9-2")["text"] == "A scientist travels far."
    found = [json.loads(line) for line in refused.read_text().splitlines()]
    assert [(one["line"], one["id"], one["code"]) for one in found] == [
        (5, "9-3", "bad_value"), (6, None, "ragged_row"),
    ]  # fmt: skip


def test_several_files_are_one_load_and_refusals_name_theirs(load: Command, api: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text,year\na1,one,1\na2,two,x\n")
    (tmp_path / "b.tsv").write_text("id\ttext\tyear\nb1\tone\t3\n\t\t\n")
    (tmp_path / "c.jsonl").write_text('{"id": "c1", "text": "one", "metadata": {"year": 2}}\n{"id": "c2"}\n')
    (tmp_path / "d.csv.gz").write_bytes(b"no gzip at all")
    names = [tmp_path / name for name in ("a.csv", "b.tsv", "c.jsonl", "d.csv.gz")]
    done = load(*names, "-i", "papers", "--create", "--field", "year=number", "--no-wait")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{names[0]} line 3 (a2): Column 'year': 'x' is not a number. [bad_value]",
        f"{names[1]} line 3: A document needs an `id` (a string), so that sending it again replaces it. [missing_id]",
        f"{names[2]} line 2 (c2): A document needs a `text`. [missing_text]",
        f"{names[3]} line 1: {names[3]} is damaged: Not a gzipped file (b'no'). [damaged_file]",
        "3 accepted, 4 rejected",
    ], done.stderr
    assert stored(api, "papers", "b1")["metadata"] == {"year": 3}


def test_a_killed_load_of_several_files_goes_on_and_notices_a_change(
    load: Command, environment: dict[str, str], api: httpx.Client, tmp_path: Path, eventually: Eventually
) -> None:
    paths = [tmp_path / "a.csv", tmp_path / "b.csv.gz"]
    rows = ["id,text\n", *(f"a{n},words\n" for n in range(300))]
    paths[0].write_text("".join(rows))
    paths[1].write_bytes(gzip.compress("".join(row.replace("a", "b") for row in rows).encode()))
    api.put("/v1/indexes/papers", json={}).raise_for_status()
    records = tmp_path / "state" / "loads"

    def place() -> dict[str, int]:
        found = [json.loads(one.read_text()) for one in records.glob("*.json")] if records.exists() else []
        return found[0]["place"] if found else {"part": 0, "line": 0}

    arguments = [*map(str, paths), "-i", "papers", "--no-wait", "--batch", "2"]
    command = [sys.executable, "-m", "cli.main", "load", *arguments]

    def kill_in_the_second_file() -> None:
        with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as killed:
            eventually(lambda: place()["part"] == 1 and place()["line"] > 10, 60, "it is in the second file")
            killed.kill()

    kill_in_the_second_file()
    reached = place()
    assert reached["part"] == 1
    done = load(*arguments)
    assert f"Resuming after line {reached['line']:,} of {paths[1]}" in done.stderr
    assert done.stdout.splitlines() == ["600 accepted, 0 rejected"]
    api.post("/v1/indexes/papers/documents", json=[{"id": "x", "text": "refreshes nothing"}]).raise_for_status()
    assert stored(api, "papers", "b299")["text"] == "words"

    kill_in_the_second_file()
    paths[0].write_text("".join(rows[:50]))
    done = load(*arguments)
    assert "have changed since" in done.stderr
    assert done.stdout.splitlines() == ["349 accepted, 0 rejected"]


def test_a_directory_is_loaded_with_its_paths_as_ids(
    load: Command, api: httpx.Client, worker: ChildProcess, tmp_path: Path
) -> None:
    root = tmp_path / "handbook"
    for name, content in {
        "index.md": b"---\ntags: [start, help]\nauthor: me\n---\n# Welcome\n\nRead this first.\n",
        "guide/page.html": b"<title>Guide</title><script>no()</script><p>How to <b>begin</b>.",
        "guide/notes.txt.gz": gzip.compress(b"Plain notes."),
        "guide/latin.txt": b"caf\xe9",
        "guide/empty.md": b"",
        ".git/config.txt": b"no",
        "guide/data.bin": b"\0",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "guide" / "back").symlink_to(root)
    refused = tmp_path / "refused.jsonl"
    done = load(root, "-i", "handbook", "--create", "--field", "tags=keyword", "--rejected", refused)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "guide/empty.md: The file has no text. [empty_file]",
        "guide/latin.txt: Line 1, byte 4 is 0xe9, which is not UTF-8: it is probably Latin-1 (ISO 8859-1) or "
        "Windows-1252, so convert the file, for example with iconv. [not_utf8]",
        "3 accepted, 2 rejected",
        "3 encoded",
    ], done.stderr
    assert "1 hidden, 1 links to directories that are read anyway, 1 of other formats" in done.stderr
    assert "Unused columns: author" in done.stderr
    found = [json.loads(line) for line in refused.read_text().splitlines()]
    assert [(one["file"], one["code"]) for one in found] == [
        ("guide/empty.md", "empty_file"), ("guide/latin.txt", "not_utf8"),
    ]  # fmt: skip
    assert stored(api, "handbook", "index.md") == {
        "title": "Welcome", "text": "Read this first.\n", "metadata": {"tags": ["start", "help"]},
    }  # fmt: skip
    assert stored(api, "handbook", "guide/page.html") == {"title": "Guide", "text": "How to begin."}
    assert stored(api, "handbook", "guide/notes.txt.gz")["text"] == "Plain notes."


def test_a_directory_is_mirrored_and_unchanged_files_are_not_sent(
    load: Command, api: httpx.Client, worker: ChildProcess, tmp_path: Path
) -> None:
    root = tmp_path / "handbook"
    root.mkdir()
    pages = {"a.md": "---\nversion: 3\n---\n# A\n\nFirst.", "b.md": "# B\n\nSecond.", "c.txt": "Third."}
    for name, text in pages.items():
        (root / name).write_text(text)
    arguments = (root, "-i", "handbook", "--create", "--field", "version=number", "--retry-seconds", 10)
    assert load(*arguments).stdout.splitlines() == ["3 accepted, 0 rejected", "3 encoded"]
    written = {name: api.get(f"/v1/indexes/handbook/documents/{name}").json() for name in pages}
    assert written["a.md"]["metadata"] == {"version": 3}
    done = load(*arguments)
    assert done.stdout.splitlines() == ["0 accepted, 0 rejected, 3 unchanged", "0 encoded"], done.stderr
    assert written == {name: api.get(f"/v1/indexes/handbook/documents/{name}").json() for name in pages}

    (root / "a.md").write_text(pages["a.md"].replace("First", "Changed"))  # the version of the page stays
    (root / "b.md").unlink()
    api.delete("/v1/indexes/handbook/documents/c.txt").raise_for_status()
    done = load(*arguments)
    assert done.stdout.splitlines() == ["2 accepted, 0 rejected", "2 encoded"], done.stderr
    assert stored(api, "handbook", "a.md")["text"] == "Changed."
    assert stored(api, "handbook", "b.md")["text"] == "Second."

    done = load(*arguments, "--mirror")
    assert done.stdout.splitlines() == ["0 accepted, 0 rejected, 2 unchanged, 1 removed", "0 encoded"], done.stderr
    assert api.get("/v1/indexes/handbook/documents/b.md").status_code == 404
    for path in root.iterdir():
        path.unlink()
    done = load(*arguments, "--mirror")
    assert "[bad_mirror]" in done.stderr
    assert stored(api, "handbook", "c.txt")["text"] == "Third."
    done = load(tmp_path / "elsewhere", "-i", "handbook")
    assert "elsewhere does not exist" in done.stderr

    (root / "d.txt").write_text("Fourth.")
    done = load(root, "-i", "handbook", "--create", "--field", "version=keyword")
    assert "declares version=number" in done.stderr
    assert "[field_differs]" in done.stderr
    assert api.get("/v1/indexes/handbook/documents/d.txt").status_code == 404


def test_rows_come_from_standard_input(environment: dict[str, str], api: httpx.Client, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "load", "-", "-i", "papers", "--no-wait", "--create"]
    for rows, given in ((b'{"id": "a", "text": "from a pipe"}\n', ()), (b"id,text\nb,a row\n", ("--format", "csv"))):
        done = subprocess.run(
            [*command, *given], input=rows, capture_output=True, env=environment, cwd=ROOT, check=False
        )
        assert done.stdout.decode().splitlines() == ["1 accepted, 0 rejected"], done.stderr
    assert stored(api, "papers", "a") == {"text": "from a pipe"}
    assert stored(api, "papers", "b") == {"text": "a row"}
    assert list((tmp_path / "state" / "loads").iterdir()) == []


def test_a_table_of_columns_is_loaded_by_row_groups(load: Command, api: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "books.parquet"
    table = pa.table(
        {
            "isbn": pa.array(range(250), pa.int64()),
            "body": [None if n == 77 else f"words {n}" for n in range(250)],
            "info": [{"year": n, "tags": ["a", "b"]} for n in range(250)],
            "vector": [[0.5] * 8] * 250,
        }
    )
    pq.write_table(table, path, row_group_size=60)
    done = load(
        path, "-i", "books", "--create", "--field", "year=number", "--map", "id=isbn", "--map", "text=body",
        "--map", "metadata.year=info.year", "--map", "metadata.tags=info.tags", "--batch", 40, "--no-wait",
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "line 78 (77): A document needs a `text`. [missing_text]", "249 accepted, 1 rejected",
    ], done.stderr  # fmt: skip
    assert "Unused columns: vector" in done.stderr
    assert stored(api, "books", "249") == {"text": "words 249", "metadata": {"year": 249, "tags": ["a", "b"]}}


@pytest.mark.parametrize("suffix", [".bz2", ".xz", ".zst"])
def test_other_compressions_are_loaded(load: Command, api: httpx.Client, tmp_path: Path, suffix: str) -> None:
    pack = {".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd.compress}[suffix]
    path = tmp_path / f"a.tsv{suffix}"
    path.write_bytes(pack(b'id\ttext\n1\t"tab\there"\n'))
    done = load(path, "-i", "papers", "--create", "--no-wait", "--id-from", "@content")
    assert done.stdout.splitlines() == ["1 accepted, 0 rejected"], done.stderr


def test_every_refusal_is_written_down(load: Command, api: httpx.Client, tmp_path: Path) -> None:
    path, refused = tmp_path / "a.csv", tmp_path / "refused.jsonl"
    path.write_text("id,text,year\n" + "".join(f"{n},a,MM\n" for n in range(1500)))
    done = load(path, "-i", "papers", "--create", "--field", "year=number", "--rejected", refused)
    assert done.returncode == 1
    assert "... and 1,490 more" in done.stdout
    assert "0 accepted, 1,500 rejected" in done.stdout
    assert [json.loads(line)["line"] for line in refused.read_text().splitlines()] == list(range(2, 1502))


@pytest.mark.parametrize(
    ("name", "content", "arguments", "code"),
    [
        ("a.csv", "a,b\n1,2\n", ("--map", "text=c"), "unknown_column"),
        ("a.csv", "id,text,id\n", (), "duplicate_column"),
        ("a.csv", "", (), "no_header"),
        ("a.csv", "id,text\n", ("--map", "body=text"), "bad_map"),
        ("a.csv", "id,text\n1,a\n", ("--map", "metadata.year=text"), "undeclared_metadata"),
        ("a.dat", "id,text\n", (), "unknown_format"),
        ("a.csv", "id,text\n", ("--delimiter", ";;"), "bad_delimiter"),
    ],
)
def test_what_cannot_be_loaded_says_why(
    load: Command, api: httpx.Client, tmp_path: Path, name: str, content: str, arguments: tuple[str, ...], code: str
) -> None:
    (tmp_path / name).write_text(content)
    if code == "undeclared_metadata":
        api.put("/v1/indexes/papers", json={}).raise_for_status()
    done = load(tmp_path / name, "-i", "papers", *arguments)
    assert done.returncode == 1
    assert f"[{code}]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
