"""Run `sparsewell dead-letters` as a user does, against a live API."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.opensearch.bulk import WriteOutcome, write_bulk
from services.opensearch.client import SyncSearchClient
from services.opensearch.journal import dead_write, retry_write
from tests.integration.indexer.journalled import Journal
from tests.preloaded import run_sparsewell

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(api_url: str) -> Run:
    """Run the command with a wide terminal, so that the table's cells stay whole."""

    def command(*arguments: str | bytes, api: str = api_url) -> "subprocess.CompletedProcess[str]":
        return run_sparsewell("dead-letters", *arguments, "--api", api, environment={**os.environ, "COLUMNS": "200"})

    return command


def die(journal: Journal, search: SyncSearchClient, *names: str) -> None:
    writes = []
    for name in names:
        stored = journal.stored(name)
        stored = replace(stored, source=stored.source | {"attempts": 3, "title": "[bold]Title[/]\x1b[31m"})
        writes.append(dead_write(journal.generation, stored, "encoding_failed", "RuntimeError: a\nline"))
    assert {verdict.outcome for verdict in write_bulk(search, writes, 1024**2, 10)} == {WriteOutcome.STORED}
    journal.refresh()


def test_list_and_retry(run: Run, journal: Journal, search: SyncSearchClient) -> None:
    names = [f"d{n:03}" for n in range(105)]
    journal.put(dict.fromkeys([*names, "alive"], "words"))
    assert run("list", "papers").stdout == "There are no dead letters.\n"
    die(journal, search, *names)
    write_bulk(search, [retry_write(journal.generation, journal.stored("d000"), 60)], 1024, 10)
    die(journal, search, "d000")

    shown = run("list", "papers", "--size", "3")
    head, first, *_, last = shown.stdout.splitlines()
    assert head.split() == ["died", "id", "title", "attempts", "reason"]
    assert "d000" in first
    assert "3 + 3" in first
    assert "encoding_failed  RuntimeError: a line" in first
    assert "[bold]Title[/]" in first
    assert "\x1b" not in shown.stdout
    assert last == "3 of 105; --size shows more."

    listed = json.loads(run("list", "papers", "--json", "-n", "1000").stdout)
    assert sorted(one["id"] for one in listed["dead"]) == names
    assert (listed["total"], listed["cursor"]) == (105, None)

    done = run("retry", "papers", "d001", "alive", "nowhere")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "1 document pending again.",
        "2 not retried:",
        "  alive: The document is not dead (pending). [not_dead]",
        "  nowhere: The index has no such document. [document_not_found]",
    ]
    done = run("retry", "papers", "--all")
    assert (done.returncode, done.stdout) == (0, "104 documents pending again.\n")
    assert set(journal.states(*names)) == {"pending"}
    assert json.loads(run("retry", "papers", "--all", "--json").stdout) == {
        "index": "papers", "retried": [], "not_retried": [], "failed": 0, "queued": True,
    }  # fmt: skip


CANNOT_BE = [
    (["list", "nowhere"], "index_not_found"),
    (["list", "Not a name"], "invalid_index_name"),
    (["list", b"\xff"], "not_utf8"),
    (["retry", "papers"], "ids_or_all"),
    (["retry", "papers", "a", "--all"], "ids_or_all"),
    (["retry", "papers", b"\xff"], "not_utf8"),
    (["retry", "nowhere", "--all"], "index_not_found"),
]


def test_what_cannot_be_is_one_line_with_a_code(run: Run, journal: Journal, subtests: pytest.Subtests) -> None:
    for arguments, code in CANNOT_BE:
        with subtests.test(arguments=arguments, code=code):
            done = run(*arguments)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"[{code}]" in done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_without_an_api(run: Run, journal: Journal) -> None:
    done = run("list", "papers", api="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "[api_unavailable]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
