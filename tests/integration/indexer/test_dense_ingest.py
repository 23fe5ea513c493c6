"""An index with a dense encoder: documents keep vectors, exports include them, reindexing copies or computes them."""

from collections.abc import Callable
from pathlib import Path

import httpx
import orjson
import pytest

from cli.loading.export import read_page
from indexer.encode_task import run_encode
from indexer.runtime import Runtime
from infra.processes import ChildProcess
from models.dense import load_dense_encoder
from services.encoders.catalogue import STANDIN_NAME, list_dense_encoders
from services.encoders.vectors import StoredDenseVectors
from services.opensearch.client import SyncSearchClient
from services.opensearch.generations import create_generation_call
from services.settings import Settings
from tests.integration.indexer.journalled import Journal
from tests.integration.indexer.reindexing import run_command

Eventually = Callable[[Callable[[], object], float, str], None]
KNOWN = list_dense_encoders(Settings())[STANDIN_NAME]
TEXTS = {"a": "pause the program", "b": "wing and flow " * 60, "c": "a folder for a while"}


def exported(api: httpx.Client) -> dict[str, dict[str, object]]:
    lines, _ = read_page(api.get("/v1/indexes/notes/export", params={"vectors": True}).raise_for_status().content)
    return {one["id"]: one for one in map(orjson.loads, lines)}


@pytest.fixture
def notes(api: httpx.Client, worker: ChildProcess, eventually: Eventually) -> httpx.Client:
    created = api.put("/v1/indexes/notes", json={"dense": STANDIN_NAME})
    assert created.status_code == 201
    assert created.json()["dense"] == KNOWN.identity.model_dump()
    documents = [{"id": name, "text": text} for name, text in TEXTS.items()]
    api.post("/v1/indexes/notes/documents", json=documents).raise_for_status()
    eventually(lambda: counts(api)["encoded"] == len(TEXTS), 60, "all are encoded")
    return api


def counts(api: httpx.Client) -> dict[str, int]:
    states: dict[str, int] = api.get("/v1/indexes/notes").raise_for_status().json()["documents"]
    return states


def test_documents_keep_a_vector_a_window_through_every_generation(notes: httpx.Client, settings: Settings) -> None:
    model = load_dense_encoder(KNOWN, Path("unused"))
    before = exported(notes)
    for name, text in TEXTS.items():
        assert before[name]["dense_encoder"] == KNOWN.identity.fingerprint
        stored = StoredDenseVectors.read({name: str(before[name]["dense"])}, model.width)
        wanted = model.encode_windows(model.windows(text, KNOWN.identity.window))
        assert stored.rows == pytest.approx(wanted, abs=0.01)
    assert "dense" not in notes.get("/v1/indexes/notes/documents/a").json()
    for arguments, said, kept in (
        (("--top-k", "300"), "vectors: copied", True),
        (("--dense", "none"), "vectors: copied", False),
        (("--dense", STANDIN_NAME), "vectors: encoded again", True),
    ):
        status, output = run_command(settings, "reindex", "notes", *arguments, "--encode-here", "--unchecked")
        assert status == 0, output
        assert said in output
        status, output = run_command(settings, "generations", "drop", "notes")
        assert status == 0, output
        found = exported(notes)
        assert {name: one.get("dense") for name, one in found.items()} == {
            name: before[name]["dense"] if kept else None for name in TEXTS
        }
        assert (notes.get("/v1/indexes/notes").json()["dense"] is not None) is kept


def test_an_encoder_that_nobody_knows_is_refused(api: httpx.Client, settings: Settings) -> None:
    answer = api.put("/v1/indexes/notes", json={"dense": "word2vec"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_dense_encoder")
    api.put("/v1/indexes/notes", json={}).raise_for_status()
    answer = api.put("/v1/indexes/notes", json={"dense": STANDIN_NAME})
    assert (answer.status_code, answer.json()["code"]) == (409, "index_exists")
    status, output = run_command(settings, "reindex", "notes", "--dense", "word2vec")
    assert status == 1
    assert "unknown_dense_encoder" in output


def test_without_its_dense_encoder_a_worker_leaves_documents_pending(
    runtime: Runtime, journal: Journal, search: SyncSearchClient, settings: Settings
) -> None:
    other = KNOWN.identity.model_copy(update={"fingerprint": "f" * 16})
    second = journal.generation.model_copy(
        update={"dense": other, "number": 2, "physical": journal.generation.physical[:-1] + "2", "token": "second"}
    )
    search.send(create_generation_call(second, settings, []))
    journal.generation = second
    journal.put({"x": "text"})
    message = journal.message("x").model_copy(update={"generation": 2})
    assert run_encode(runtime, message, redelivered=False) == {"mismatch": 1}
