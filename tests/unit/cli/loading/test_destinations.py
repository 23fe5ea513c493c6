"""A load of several sources resumes after any batch, and refusals name their files."""

import gzip
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cli.loading.arguments import open_sources
from cli.loading.checkpoint import LoadCheckpoint, content_identity
from cli.loading.destinations import SentBatch, locate_refusal, send_all
from cli.loading.field_map import DocumentMapper, FieldMap
from cli.loading.source import LoadSource, Refusal, SourceBatch
from cli.terminal import LoadDisplay


class Died(Exception):
    pass


class Door:
    """A destination that accepts a number of batches, then fails, and refuses documents whose text is "bad"."""

    def __init__(self, lives: int = 10**9) -> None:
        self.lives = lives
        self.taken: list[tuple[int, str]] = []

    def send(self, batch: SourceBatch) -> SentBatch:
        if not self.lives:
            raise Died
        self.lives -= 1
        found = [(number, orjson.loads(line)) for number, line in batch.lines]
        self.taken += [(number, document["id"]) for number, document in found]
        bad = [Refusal(n, one["id"], "bad", "Bad.") for n, one in found if one["text"] == "bad"]
        return SentBatch(["job"], len(found) - len(bad), bad)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    (tmp_path / "a.csv").write_text(
        "id,text\n" + "".join(f'a{n},"two\nlines"\n' for n in range(7)) + "a7,bad\nragged\n"
    )
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(b'{"id":"b%d","text":"x"}\n' % n for n in range(6))))
    (tmp_path / "c.tsv").write_text("")
    pq.write_table(pa.table({"id": [f"p{n}" for n in range(5)], "text": ["x"] * 4 + ["bad"]}), tmp_path / "d.parquet")
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    for n in range(5):
        (tmp_path / "docs" / "deep" / f"e{n}.md").write_text("bad" if n == 2 else f"# Title {n}\n\nText.")
    (tmp_path / "docs" / "empty.txt").touch()
    return [tmp_path / name for name in ("a.csv", "b.jsonl.gz", "c.tsv", "d.parquet", "docs")]


def sources(paths: list[Path]) -> list[LoadSource]:
    return open_sources(paths, None, None, FieldMap())


def run(paths: list[Path], record: LoadCheckpoint, door: Door, size: int) -> None:
    with LoadDisplay(Console(quiet=True)) as show:
        send_all(sources(paths), record, door, DocumentMapper(FieldMap(), {}), size, show)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_load_resumes_after_any_batch(paths: list[Path], tmp_path: Path, size: int) -> None:
    whole = Door()
    record = LoadCheckpoint(tmp_path / "whole.json", "c")
    run(paths, record, whole, size)
    numbers = [number for number, _ in whole.taken]
    assert numbers == sorted(set(numbers)), "places in the job are distinct and in order"
    assert [name for _, name in whole.taken] == [
        *(f"a{n}" for n in range(8)), *(f"b{n}" for n in range(6)), *(f"p{n}" for n in range(5)),
        *(f"deep/e{n}.md" for n in range(5)),
    ]  # fmt: skip
    refused = [(one.where, one.id, one.code) for one in record.refusals()]
    assert refused == [
        (f"{paths[0]} line 16", "a7", "bad"), (f"{paths[0]} line 17", None, "ragged_row"),
        (f"{paths[2]} line 1", None, "no_header"), (f"{paths[3]} line 5", "p4", "bad"),
        ("deep/e2.md", "deep/e2.md", "bad"), ("empty.txt", None, "empty_file"),
    ]  # fmt: skip
    assert (record.sent, record.accepted, record.rejected) == (24, 21, 6)
    for lives in range(25):
        path = tmp_path / f"{lives}.json"
        first, second = Door(lives), Door()
        try:
            run(paths, LoadCheckpoint(path, "c"), first, size)
        except Died:
            again = LoadCheckpoint.open(path, "c")
            run(paths, again, second, size)
            assert first.taken + second.taken == whole.taken
            assert [(one.where, one.id, one.code) for one in again.refusals()] == refused
            assert (again.sent, again.accepted, again.rejected) == (24, 21, 6)
        else:
            assert first.taken == whole.taken


def test_positions_of_a_job_are_located_in_files_and_lines(paths: list[Path], tmp_path: Path) -> None:
    """At the end, the queue reports refusals by their positions in the job."""
    door, record = Door(), LoadCheckpoint(tmp_path / "r.json", "c")
    run(paths, record, door, 4)
    found = {
        name: locate_refusal(Refusal(number, name, "late", "Late."), record, sources(paths))
        for number, name in door.taken
    }
    assert found["a0"].where == f"{paths[0]} line 2"
    assert found["b0"].where == f"{paths[1]} line 1"
    assert found["p4"].where == f"{paths[3]} line 5"
    assert found["deep/e0.md"].where == f"{paths[4]} line 1"


def test_a_file_that_changes_while_it_is_read_is_noticed(paths: list[Path], tmp_path: Path) -> None:
    class Writing(Door):
        def send(self, batch: SourceBatch) -> SentBatch:
            if not self.taken:
                paths[0].write_text(paths[0].read_text() + "late,late\n")
            return super().send(batch)

    said: list[str] = []
    with LoadDisplay(Console(quiet=True)) as show:
        show.report = said.append  # type: ignore[method-assign]
        send_all(
            sources(paths[:2]), LoadCheckpoint(tmp_path / "r", "c"), Writing(), DocumentMapper(FieldMap(), {}), 3, show
        )
    assert said == [f"{paths[0]} changed while it was read: load it again."]


def test_any_changed_source_changes_the_content(paths: list[Path]) -> None:
    before = content_identity(sources(paths))
    assert content_identity(sources(paths)) == before
    (paths[4] / "deep" / "e0.md").write_text("other")
    assert content_identity(sources(paths)) != before
