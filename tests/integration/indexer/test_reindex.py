"""`sparsewell reindex` and `sparsewell generations` against a live API, a real worker and a continuous writer."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra import processes
from infra.processes import ChildProcess
from services.settings import Settings
from tests.integration.indexer.reindexing import another_encoder, run_command
from tests.integration.older_index import create_older_index

Eventually = Callable[[Callable[[], object], float, str], None]
Start = Callable[..., ChildProcess]
DOCUMENTS = 120


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return another_encoder(tmp_path / "other")


@pytest.fixture
def settings(settings: Settings, other: Path) -> Settings:
    return settings.model_copy(update={"more_encoders": str(other)})


@pytest.fixture
def command(settings: Settings, api_url: str) -> Callable[..., str]:
    """Run a command that must succeed and return its output."""

    def run(*arguments: str, status: int = 0) -> str:
        code, output = run_command(settings, *arguments)
        assert code == status, output
        assert "Traceback" not in output
        return output

    return run


@pytest.fixture
def notes(api: httpx.Client, worker: ChildProcess, eventually: Eventually) -> httpx.Client:
    """Create an index of encoded documents."""
    api.put("/v1/indexes/notes", json={"fields": {"year": "number"}}).raise_for_status()
    documents = [
        {
            "id": f"d{i}",
            "title": f"Note {i}",
            "text": f"words about topic {i % 7} and number {i}",
            "metadata": {"year": i},
        }
        for i in range(DOCUMENTS)
    ]
    api.post("/v1/indexes/notes/documents", json=documents).raise_for_status()
    eventually(lambda: counts(api)["encoded"] == DOCUMENTS, 60, "all are encoded")
    return api


def counts(api: httpx.Client) -> dict[str, int]:
    found: dict[str, int] = api.get("/v1/indexes/notes").raise_for_status().json()["documents"]
    return found


def generation(api: httpx.Client) -> int:
    return int(api.get("/v1/indexes/notes").raise_for_status().json()["generation"])


def search(api: httpx.Client, query: str, **more: Any) -> list[str]:
    body = {"query": query, "mode": "sparse", "size": 10, **more}
    answer = api.post("/v1/indexes/notes/search", json=body).raise_for_status().json()
    return [hit["id"] for hit in answer["hits"]]


class Writer:
    """Replace, add and delete documents until stopped, and record the acknowledged writes."""

    def __init__(self, url: str) -> None:
        self.acknowledged: dict[str, str | None] = {}
        self.refused: list[str] = []
        self.not_queued = 0  # Redis was slow. A sweeper would enqueue these documents when their leases end.
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                name = f"d{number % DOCUMENTS}" if number % 3 else f"new{number}"
                path = f"/v1/indexes/notes/documents/{name}"
                if number % 5 == 0:
                    answer = client.delete(path, params={"version": time.time_ns() // 1000})
                    text = None
                else:
                    text = f"written while reindexing {number}"
                    answer = client.put(path, json={"text": text})
                if answer.status_code in (202, 204):
                    self.acknowledged[name] = text
                    self.not_queued += answer.status_code == 202 and not answer.json()["queued"]
                else:
                    self.refused.append(f"{answer.status_code} {answer.text}")


def missing(api: httpx.Client, acknowledged: dict[str, str | None]) -> list[str]:
    """Return the documents that differ from the last acknowledged write."""
    wrong = []
    for name, text in acknowledged.items():
        answer = api.get(f"/v1/indexes/notes/documents/{name}")
        found = answer.json()["text"] if answer.status_code == 200 else None
        if found != text:
            wrong.append(f"{name}: {found!r} instead of {text!r}")
    return wrong


def test_a_new_encoder_while_writes_go_on_loses_nothing_and_is_never_down(
    notes: httpx.Client, api_url: str, settings: Settings, other: Path, start: Start, command: Callable[..., str],
    eventually: Eventually,
) -> None:  # fmt: skip
    worker = start("-m", "cli.main", "worker", SPARSEWELL_ENCODER=str(other))
    with Writer(api_url) as writer:
        eventually(lambda: len(writer.acknowledged) > 20, 60, "writes go on")
        said = command("reindex", "notes", "--encoder", str(other))
        before = len(writer.acknowledged)
        eventually(lambda: len(writer.acknowledged) > before + 20, 60, "writes go on afterwards")
    assert "standin" in said and "other" in said and "generation 2 is searched" in said
    assert writer.refused == []
    assert generation(notes) == 2
    assert missing(notes, writer.acknowledged) == []
    eventually(lambda: counts(notes)["pending"] <= writer.not_queued, 60, "everything is encoded by the new encoder")
    assert search(notes, "topic 3")
    assert worker.alive()


def test_pruning_copies_vectors_and_needs_no_encoder(
    notes: httpx.Client, worker: ChildProcess, command: Callable[..., str]
) -> None:
    processes.stop_child(worker, 0)
    before = search(notes, "number 17")
    said = command("reindex", "notes", "--top-k", "300", "--language", "standard")
    assert "vectors: copied" in said
    found = notes.get("/v1/indexes/notes").json()
    assert (found["generation"], found["document_top_k"], found["language"]) == (2, 300, "standard")
    assert counts(notes)["encoded"] == DOCUMENTS
    time.sleep(2.1)  # an API caches the old generation for two seconds
    assert search(notes, "number 17") == before


def test_an_index_of_an_older_version_is_folded_without_an_encoder(
    api: httpx.Client, settings: Settings, worker: ChildProcess, command: Callable[..., str], eventually: Eventually
) -> None:
    create_older_index(api, settings, "notes")
    documents = [{"id": "accent", "text": "a café"}, {"id": "plain", "text": "a cafe"}]
    api.post("/v1/indexes/notes/documents", json=documents).raise_for_status()
    eventually(lambda: counts(api)["encoded"] == 2, 60, "both are encoded")
    assert search(api, "cafe", mode="lexical") == ["plain"]
    processes.stop_child(worker, 0)
    said = command("reindex", "notes")
    assert "folds: False -> True" in said
    assert "vectors: copied" in said
    time.sleep(2.1)  # an API caches the old generation for two seconds
    assert search(api, "cafe", mode="lexical") == ["plain", "accent"]
    assert search(api, "café", mode="lexical") == ["accent", "plain"]
    command("generations", "rollback", "notes")
    time.sleep(2.1)
    assert search(api, "cafe", mode="lexical") == ["plain"]


def test_vectors_of_windows_are_nested_and_merged_again_without_an_encoder(
    api: httpx.Client, worker: ChildProcess, command: Callable[..., str], eventually: Eventually
) -> None:
    api.put("/v1/indexes/notes", json={"window": {"pieces": 16, "overlap": 4}}).raise_for_status()
    texts = [f"topic {i % 5} at the beginning {'and filler ' * 20} and number {i} at the end" for i in range(30)]
    documents = [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    api.post("/v1/indexes/notes/documents", json=documents).raise_for_status()
    eventually(lambda: counts(api)["encoded"] == len(texts), 60, "all are encoded")
    processes.stop_child(worker, 0)
    merged = search(api, "topic 3 number 8")
    refused = api.post("/v1/indexes/notes/search", json={"query": "x", "score_by": "window"})
    assert refused.json()["code"] == "not_scored_by"
    by_window = []
    for windows, default in (("both", "window"), ("nested", "window"), ("merged", "document")):
        said = command("reindex", "notes", "--windows", windows)
        assert "vectors: copied" in said
        command("generations", "drop", "notes")
        time.sleep(2.1)  # an API caches the old generation for two seconds
        assert api.get("/v1/indexes/notes").json()["windows"] == windows
        assert counts(api)["encoded"] == len(texts)
        found = search(api, "topic 3 number 8", score_by=default)
        assert found == search(api, "topic 3 number 8")
        if default == "window":
            by_window.append(found)
    assert by_window[0] == by_window[1] != merged
    assert found == merged
    assert "bad_change" in command("reindex", "notes", "--windows", "none", status=1)


def test_another_window_is_encoded_again_in_this_process(
    notes: httpx.Client, worker: ChildProcess, command: Callable[..., str]
) -> None:
    processes.stop_child(worker, 0)
    said = command("reindex", "notes", "--window", "16", "--overlap", "4", "--encode-here")
    assert "vectors: encoded again" in said
    found = notes.get("/v1/indexes/notes").json()
    assert found["window"] == {"pieces": 16, "overlap": 4}
    assert counts(notes)["encoded"] == DOCUMENTS


def test_back_to_the_old_generation_with_what_came_since(
    notes: httpx.Client, other: Path, command: Callable[..., str], eventually: Eventually
) -> None:
    command("reindex", "notes", "--encoder", str(other), "--encode-here")
    notes.put("/v1/indexes/notes/documents/since", json={"text": "written since the swap"}).raise_for_status()
    notes.delete("/v1/indexes/notes/documents/d1").raise_for_status()
    # the running worker has the old encoder, and newer documents wait for it
    shown = json.loads(command("generations", "show", "notes", "--json"))
    assert [(one["generation"], one["searched"]) for one in shown["generations"]] == [(1, False), (2, True)]
    assert "generation_kept" in command("reindex", "notes", "--top-k", "9", status=1)
    said = command("generations", "rollback", "notes")
    assert "generation 1 is searched again" in said
    assert generation(notes) == 1
    assert notes.get("/v1/indexes/notes/documents/since").json()["text"] == "written since the swap"
    assert notes.get("/v1/indexes/notes/documents/d1").status_code == 404
    eventually(lambda: counts(notes)["pending"] == 0, 60, "the old encoder's worker has done its part")
    command("generations", "drop", "notes")
    assert [
        one["generation"] for one in json.loads(command("generations", "show", "notes", "--json"))["generations"]
    ] == [1]


def test_given_up_before_the_swap_nothing_has_changed(
    notes: httpx.Client, other: Path, command: Callable[..., str]
) -> None:
    command("reindex", "notes", "--encoder", str(other), "--encode-here", "--no-swap")
    assert generation(notes) == 1
    assert "reindex_exists" in command("reindex", "notes", "--top-k", "9", status=1)
    command("generations", "abort", "notes")
    shown = json.loads(command("generations", "show", "notes", "--json"))
    assert ([one["generation"] for one in shown["generations"]], shown["reindex"]) == ([1], None)
    assert search(notes, "topic 3")


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Path]:
    """Write questions about numbers with one relevant document each."""
    folder = tmp_path / "judged"
    folder.mkdir()
    numbers = range(10, 60)
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": f"words about number {n}"}) + "\n" for n in numbers)
    )
    (folder / "qrels.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in numbers))
    yield folder


def test_a_worse_encoder_is_not_swapped_in(
    notes: httpx.Client, tmp_path: Path, judged: Path, settings: Settings, command: Callable[..., str]
) -> None:
    spoilt = another_encoder(tmp_path / "spoilt", spoilt=True)
    options = (
        "reindex",
        "notes",
        "--encoder",
        str(spoilt),
        "--encode-here",
        "--judgements",
        str(judged),
        "--unchecked",
    )
    said = command(*options, status=1)
    assert "[quality_gate]" in said
    assert generation(notes) == 1
    # the control: without judgements the command swaps to the same encoder
    command("reindex", "notes", "--encoder", str(spoilt), "--encode-here", "--unchecked")
    assert json.loads(command("generations", "show", "notes", "--json"))["generations"][1]["searched"]


def test_a_good_encoder_passes_the_gate(
    notes: httpx.Client, other: Path, judged: Path, command: Callable[..., str]
) -> None:
    said = command("reindex", "notes", "--encoder", str(other), "--encode-here", "--judgements", str(judged))
    assert "NDCG@10 sparse" in said
    assert generation(notes) == 2


def test_an_api_without_the_query_table_keeps_the_old_generation(
    notes: httpx.Client, tmp_path: Path, command: Callable[..., str]
) -> None:
    stranger = another_encoder(tmp_path / "stranger", spoilt=True)
    said = command("reindex", "notes", "--encoder", str(stranger), "--encode-here", status=1)
    assert "[encoder_not_served]" in said
    assert generation(notes) == 1


CANNOT_BE_DONE = [
    (("reindex", "nothing-there"), "index_not_found"),
    (("reindex", "Bad Name"), "invalid_index_name"),
    (("reindex", "notes", "--encoder", "no-such"), "unknown_encoder"),
    (("reindex", "notes", "--window", "600"), "bad_window"),
    (("reindex", "notes", "--window", "20", "--overlap", "19"), "bad_change"),
    (("reindex", "notes", "--language", "klingon"), "bad_change"),
    (("reindex", "notes", "--field", "year=colour"), "bad_field"),
    (("reindex", "notes", "--judgements", "/nowhere"), "collection_not_found"),
    (("reindex", "notes", "--gate-modes", "dense"), "bad_mode"),
    (("generations", "rollback", "notes"), "no_reindex"),
    (("generations", "drop", "notes"), "no_reindex"),
    (("generations", "abort", "notes"), "no_reindex"),
]


def test_what_cannot_be_done_is_said_in_a_line(
    api: httpx.Client, command: Callable[..., str], subtests: pytest.Subtests
) -> None:
    api.put("/v1/indexes/notes", json={"fields": {"year": "number"}}).raise_for_status()
    for arguments, code in CANNOT_BE_DONE:
        with subtests.test(arguments=arguments, code=code):
            assert f"[{code}]" in command(*arguments, status=1)


def test_documents_that_do_not_fit_the_new_fields_stop_the_swap(
    api: httpx.Client, worker: ChildProcess, command: Callable[..., str], eventually: Eventually
) -> None:
    api.put("/v1/indexes/notes", json={"fields": {"year": "keyword"}}).raise_for_status()
    documents = [
        {"id": "a", "text": "x", "metadata": {"year": "1999"}},
        {"id": "b", "text": "y", "metadata": {"year": "MM"}},
    ]
    api.post("/v1/indexes/notes/documents", json=documents).raise_for_status()
    eventually(lambda: counts(api)["encoded"] == 2, 60, "both are encoded")
    said = command("reindex", "notes", "--field", "year=number", status=1)
    assert "2 documents do not fit" in said
    assert "--convert" in said
    assert "a: `metadata.year` must be of type number; got '1999'." in said
    assert generation(api) == 1
    said = command("reindex", "notes", "--field", "year=number", "--convert", status=1)
    assert "1 documents do not fit" in said
    assert "b: Column 'year': 'MM' is not a number." in said
    corrected = {"id": "b", "text": "y", "metadata": {"year": "2000"}}
    api.post("/v1/indexes/notes/documents", json=[corrected]).raise_for_status()
    command("generations", "abort", "notes")
    command("reindex", "notes", "--field", "year=number", "--convert")
    assert generation(api) == 2
    assert {name: api.get(f"/v1/indexes/notes/documents/{name}").json()["metadata"] for name in "ab"} == {
        "a": {"year": 1999},
        "b": {"year": 2000},
    }
    wanted = {"query": "x y", "filter": {"field": "year", "range": {"gte": 2000}}}
    found = api.post("/v1/indexes/notes/search", json=wanted).json()
    assert [hit["id"] for hit in found["hits"]] == ["b"]
    written = {"id": "c", "text": "z", "metadata": {"year": 2001}}
    api.post("/v1/indexes/notes/documents", json=[written]).raise_for_status()
    command("generations", "rollback", "notes")
    years = [api.get(f"/v1/indexes/notes/documents/{name}").json()["metadata"]["year"] for name in "abc"]
    assert years == ["1999", "2000", "2001"]


def test_stored_numbers_are_no_keywords(
    api: httpx.Client, worker: ChildProcess, command: Callable[..., str], eventually: Eventually
) -> None:
    """OpenSearch accepts a number for a keyword, so without a check the new generation would hold it."""
    api.put("/v1/indexes/notes", json={"fields": {"price": "number"}}).raise_for_status()
    document = {"id": "a", "text": "x", "metadata": {"price": [12, 0.5]}}
    api.post("/v1/indexes/notes/documents", json=[document]).raise_for_status()
    eventually(lambda: counts(api)["encoded"] == 1, 60, "it is encoded")
    said = command("reindex", "notes", "--field", "price=keyword", status=1)
    assert "[misfits]" in said and "a: `metadata.price` must be of type keyword; got 12." in said
    assert generation(api) == 1
    command("reindex", "notes", "--field", "price=keyword", "--convert")
    assert generation(api) == 2
    read = api.get("/v1/indexes/notes/documents/a").json()
    assert read["metadata"] == {"price": ["12", "0.5"]}
    # Its own declaration accepts the document as it was read.
    assert api.put("/v1/indexes/notes/documents/a", json=read).status_code == 202
