"""Responses of the API while a backend is away."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi.testclient import TestClient

from infra.ports import find_free_port
from query_api.app import create_app
from services.errors import ConfigurationError
from services.settings import Settings


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_without_opensearch_every_path_says_so_and_liveness_stays(settings: Settings) -> None:
    away = settings.model_copy(
        update={"opensearch_url": f"http://127.0.0.1:{find_free_port()}", "opensearch_timeout": 2.0}
    )
    with serving(away) as api:
        for response in (
            api.get("/v1/indexes"),
            api.get("/v1/indexes/docs"),
            api.put("/v1/indexes/docs"),
            api.get("/v1/indexes/docs/search", params={"q": "x"}),
            api.post("/v1/indexes/docs/documents", json=[{"id": "a", "text": "x"}]),
            api.get("/v1/jobs/x"),
            api.get("/readyz"),
        ):
            assert (response.status_code, response.json()["code"]) == (503, "opensearch_unavailable")
            assert response.headers["retry-after"]
        assert api.get("/healthz").status_code == 200


def test_without_redis_documents_are_kept_and_searches_answered(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{find_free_port()}/0"})
    with serving(away) as api:
        api.put("/v1/indexes/docs")
        answer = api.post("/v1/indexes/docs/documents", json=[{"id": "a", "text": "unmistakable"}])
        assert answer.status_code == 202
        assert (answer.json()["accepted"], answer.json()["queued"]) == (["a"], False)
        assert api.get(f"/v1/jobs/{answer.json()['job']['id']}").json()["states"]["pending"] == 1
        hits = api.get("/v1/indexes/docs/search", params={"q": "unmistakable"}).json()["hits"]
        assert [hit["id"] for hit in hits] == ["a"]
        assert api.get("/readyz").json()["queue"] == {"reachable": False, "messages": None}


def test_an_index_of_another_encoder_is_refused_not_searched_with_the_wrong_table(
    settings: Settings, opensearch_url: str
) -> None:
    with serving(settings) as api:
        api.put("/v1/indexes/docs")
        physical = f"{settings.index_prefix}-docs.g000001"
        with httpx.Client(base_url=opensearch_url, timeout=30, trust_env=False) as node:
            meta = node.get(f"/{physical}/_mapping").json()[physical]["mappings"]["_meta"]
            meta["sparsewell"]["encoder"]["fingerprint"] = "f" * 16
            node.put(f"/{physical}/_mapping", json={"_meta": meta}).raise_for_status()
        response = api.get("/v1/indexes/docs/search", params={"q": "x"})
        assert (response.status_code, response.json()["code"]) == (503, "encoder_mismatch")
        ready = api.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["query_tables"]) == (200, "encoder_mismatch")
        named = {"index": "docs", "encoder": "standin", "fingerprint": "f" * 16}
        assert (ready.json()["indexes"], ready.json()["unserved"]) == (1, {"indexes": 1, "first": [named]})
        assert api.put("/v1/indexes/others").status_code == 201
        assert api.get("/v1/indexes/others/search", params={"q": "x"}).status_code == 200


def test_an_unknown_encoder_is_a_configuration_error(settings: Settings) -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_app(settings.model_copy(update={"encoder": "nope"}))
    assert caught.value.code == "unknown_encoder"
