"""A decoder beside the stand-in encoder: an index of its own, and `sparsewell reindex --encoder`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.processes import ChildProcess
from infra.stack import settings_environment
from models.registry import load_encoder
from services.encoders.manifest import read_manifest
from services.encoders.query_table import QueryTable
from services.encoders.vectors import merge_max
from services.settings import Settings
from tests.training.decoder.tiny_decoder import SENTENCES

Eventually = Callable[[Callable[[], object], float, str], None]
DOCUMENTS = [{"id": f"d{i}", "title": f"Note {i}", "text": sentence} for i, sentence in enumerate(SENTENCES)]


@pytest.fixture
def settings(settings: Settings, directory: Path, request: pytest.FixtureRequest) -> Settings:
    """Return settings whose encoder is the decoder, or the stand-in with the decoder as a further encoder."""
    if getattr(request, "param", "decoder") == "decoder":
        return settings.model_copy(update={"encoder": str(directory)})
    return settings.model_copy(update={"more_encoders": str(directory)})


def encoded(api: httpx.Client, eventually: Eventually) -> None:
    api.put("/v1/indexes/notes", json={}).raise_for_status()
    job = api.post("/v1/indexes/notes/documents", json=DOCUMENTS).raise_for_status().json()["job"]["id"]
    eventually(lambda: api.get(f"/v1/jobs/{job}").json()["finished"], 120, "the documents are encoded")
    assert api.get(f"/v1/jobs/{job}").json()["states"]["encoded"] == len(DOCUMENTS)


def check_scores(api: httpx.Client, table: QueryTable, query: str) -> list[dict[str, Any]]:
    """Check that sparse scores are dot products of query and stored weights, and return the hits."""
    body = {"query": query, "mode": "sparse", "explain": True, "size": 20}
    answer = api.post("/v1/indexes/notes/search", json=body).raise_for_status().json()
    weights = {table.piece(i): weight for i, weight in table.encode(query, 100).by_id().items()}
    assert {piece["piece"]: piece["weight"] for piece in answer["pieces"]} == pytest.approx(weights)
    for hit in answer["hits"]:
        assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["scores"]["sparse"], rel=1e-5)
        assert {why["piece"] for why in hit["why"]} <= weights.keys()
    hits: list[dict[str, Any]] = answer["hits"]
    return hits


def wanted_scores(directory: Path, query: str) -> dict[str, float]:
    """Return the dot product of the query and each document's vector, computed here, by document id."""
    encoder = load_encoder(str(directory), threads=1)
    query_weights = QueryTable.load(directory).encode(query, 100).by_id()
    scores = {}
    for document in DOCUMENTS:
        vector = merge_max(encoder.encode(encoder.windows(f"{document['title']}\n{document['text']}")))
        scores[document["id"]] = vector.top(encoder.manifest.top_k).dot(query_weights)
    return {name: score for name, score in scores.items() if score > 0}


def test_a_document_of_a_decoder_index_is_found(
    api: httpx.Client, worker: ChildProcess, directory: Path, eventually: Eventually
) -> None:
    encoded(api, eventually)
    assert api.get("/v1/indexes/notes").json()["encoder"]["fingerprint"] == read_manifest(directory).fingerprint
    query = "The WING of an aeroplane, and the air"
    hits = check_scores(api, QueryTable.load(directory), query)
    assert {hit["id"]: hit["scores"]["sparse"] for hit in hits} == pytest.approx(
        wanted_scores(directory, query), rel=5e-3
    )
    whys = [why for hit in hits for why in hit["why"]]
    assert {why["expansion"] for why in whys} == {True, False}


@pytest.mark.parametrize("settings", ["standin"], indirect=True)
def test_reindex_builds_a_generation_of_the_decoder_beside_the_old_one(
    api: httpx.Client, api_url: str, settings: Settings, worker: ChildProcess, directory: Path, eventually: Eventually
) -> None:
    encoded(api, eventually)
    old = api.get("/v1/indexes/notes").json()
    assert check_scores(api, QueryTable.load(Path("models/weights/standin")), "a warm wall")
    command = [sys.executable, "-m", "cli.main", "reindex", "notes", "--encoder", str(directory), "--encode-here"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd()), **settings_environment(settings)}
    done = subprocess.run(
        [*command, "--api", api_url], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    new = api.get("/v1/indexes/notes").json()
    assert (new["generation"], new["encoder"]["name"]) == (old["generation"] + 1, "tiny-mistral")
    hits = check_scores(api, QueryTable.load(directory), "a warm wall")
    assert {hit["id"] for hit in hits} == wanted_scores(directory, "a warm wall").keys()
