"""API keys: creation, use, rotation, revocation, the rights of each key, and the information that outsiders get."""

import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest

from services.access.api_keys import generate_key
from services.settings import Settings
from sparsewell_client import Client, Forbidden, Unauthorized
from tests.preloaded import run_sparsewell

Make = Callable[..., str]
As = Callable[[str], httpx.Client]
Eventually = Callable[[Callable[[], object], float, str], None]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_key_may_what_its_scopes_say(admin: httpx.Client, make_key: Make, as_key: As) -> None:
    assert admin.put("/v1/indexes/books").status_code == 201
    searcher, writer = as_key(make_key(["search"])), as_key(make_key(["ingest"]))
    document = [{"id": "1", "text": "a carpenter repairs chairs"}]
    assert code(searcher.post("/v1/indexes/books/documents", json=document)) == (403, "insufficient_scope")
    job = writer.post("/v1/indexes/books/documents", json=document)
    assert job.status_code == 202
    assert writer.get(f"/v1/jobs/{job.json()['job']['id']}").status_code == 200
    for client, allowed in ((searcher, True), (writer, False)):
        answers = [
            client.post("/v1/indexes/books/search", json={"query": "chairs"}),
            client.get("/v1/indexes/books/search?q=chairs"),
            client.post("/v1/search", json={"query": "chairs", "indexes": ["books"]}),
            client.get("/v1/indexes/books/documents/1"),
            client.get("/v1/indexes/books/suggest?q=c"),
            client.get("/v1/indexes/books/export"),
            client.post("/v1/search/batch", json={"searches": [{"index": "books", "query": "x"}]}),
        ]
        wanted = 200 if allowed else 403
        assert [one.status_code for one in answers] == [wanted] * len(answers)
        assert client.get("/v1/indexes/books").status_code == 200
        for method, path in (
            ("PUT", "/v1/indexes/more"), ("DELETE", "/v1/indexes/books"), ("GET", "/v1/keys"), ("POST", "/v1/keys"),
            ("GET", "/v1/indexes/books/curation"), ("GET", "/v1/indexes/books/queries"),
        ):  # fmt: skip
            refused = client.request(method, path, json={} if method == "POST" else None)
            assert refused.status_code in (403, 422) and (refused.status_code == 403 or method == "POST")
    challenge = searcher.put("/v1/indexes/more").headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge and 'scope="admin"' in challenge


def test_indexes_that_are_not_a_key_s_own_are_answered_alike_whether_they_exist_or_not(
    admin: httpx.Client, make_key: Make, as_key: As
) -> None:
    for name in ("books", "logs-1", "logs-2"):
        assert admin.put(f"/v1/indexes/{name}").status_code == 201
    job = admin.post("/v1/indexes/books/documents", json=[{"id": "1", "text": "x"}]).json()["job"]["id"]
    client = as_key(make_key(["search", "ingest"], indexes=["logs-*"]))
    operator = as_key(make_key(["admin"], indexes=["logs-*"]))
    data_requests = [
        ("POST", "/search", {"query": "x"}), ("GET", "/search?q=x", None), ("GET", "/suggest?q=x", None),
        ("GET", "", None), ("GET", "/documents/1", None), ("GET", "/chapters/1", None), ("GET", "/export", None),
        ("POST", "/documents", []), ("PUT", "/documents/1", {"text": "x"}), ("DELETE", "/documents/1", None),
        ("GET", "/dead-letters", None), ("POST", "/dead-letters/retry", {"all": True}),
    ]  # fmt: skip
    managed = [("PUT", "", {}), ("DELETE", "", None), ("GET", "/curation", None), ("GET", "/queries", None)]
    for who, requests in ((client, data_requests), (operator, data_requests + managed)):
        for method, path, body in requests:
            told = []
            for index in ("books", "nothing"):
                answer = who.request(method, f"/v1/indexes/{index}{path}", json=body)
                assert code(answer) == (403, "index_forbidden"), (method, path)
                told.append(answer.text.replace(index, "INDEX"))
            assert told[0] == told[1]
    for index in ("books", "nothing"):
        across = client.post("/v1/search", json={"query": "x", "indexes": ["logs-1", index]})
        assert code(across) == (403, "index_forbidden")
        batched = client.post(
            "/v1/search/batch", json={"searches": [{"index": index, "query": "x"}, {"index": "logs-1", "query": "x"}]}
        ).json()["answers"]
        assert [one["status"] for one in batched] == [403, 200]
    assert code(client.get(f"/v1/jobs/{job}")) == (404, "job_not_found")
    assert code(client.get("/v1/indexes/logs-9")) == (404, "index_not_found")
    assert [one["name"] for one in client.get("/v1/indexes").json()["indexes"]] == ["logs-1", "logs-2"]
    # it may manage its indexes, but cannot extend its own rights
    assert operator.put("/v1/indexes/logs-3").status_code == 201
    assert code(operator.post("/v1/keys", json={"name": "x", "scopes": ["admin"]})) == (403, "keys_forbidden")
    assert code(operator.get("/v1/keys")) == (403, "keys_forbidden")
    assert operator.get("/v1/keys/self").json()["indexes"] == ["logs-*"]


NO_KEYS: list[tuple[list[tuple[str, str]], str]] = [
    ([], "no_credentials"),
    ([("x-api-key", "{key}")], "no_credentials"),
    ([("authorization", "Basic {key}")], "bad_credentials"),
    ([("authorization", "Bearer")], "bad_credentials"),
    ([("authorization", "Bearer {key} {key}")], "bad_credentials"),
    ([("authorization", "Bearer {key}, Bearer {key}")], "bad_credentials"),
    ([("authorization", "Bearer {key}"), ("authorization", "Bearer {key}")], "bad_credentials"),
    ([("authorization", "Bearer x"), ("authorization", "Bearer {key}")], "bad_credentials"),
    ([("authorization", "Bearer {key}x")], "bad_key"),
    ([("authorization", "Bearer {other}")], "bad_key"),
    ([("authorization", "Bearer " + "x" * 5000)], "bad_key"),
]


def test_what_is_no_key_is_refused(api: httpx.Client, admin_key: str) -> None:
    other = generate_key("b" * 16)
    for headers, wanted in NO_KEYS:
        given = [(name, value.format(key=admin_key, other=other)) for name, value in headers]
        answer = api.get("/v1/indexes", headers=given)
        assert code(answer) == (401, wanted)
        assert ("error=" in answer.headers["www-authenticate"]) == (wanted != "no_credentials")
        assert admin_key not in answer.text and other not in answer.text


def test_a_key_in_the_address_is_refused_even_where_it_is_right(admin: httpx.Client, admin_key: str) -> None:
    for name in ("api_key", "access_token", "KEY", "token", "api%5Fkey"):
        answer = admin.get(f"/v1/indexes?{name}={admin_key}")
        assert code(answer) == (422, "key_in_address") and admin_key not in answer.text
    assert admin.get("/v1/indexes/none/search?q=api_key%3D1").status_code == 404


def test_rotation_and_revocation(
    admin: httpx.Client, make_key: Make, as_key: As, settings: Settings, live_api: Callable[..., object]
) -> None:
    first = make_key(["search"])
    key_id = first.split("_")[1]
    rotated = admin.post(f"/v1/keys/{key_id}/rotate", json={"overlap_seconds": 3600}).json()
    assert len(rotated["secrets"]) == 2 and rotated["key"] != first
    for text in (first, rotated["key"]):
        assert as_key(text).get("/v1/indexes").status_code == 200
    assert code(admin.post(f"/v1/keys/{key_id}/rotate")) == (409, "key_rotating")
    other = make_key(["search"])
    ended = admin.post(f"/v1/keys/{other.split('_')[1]}/rotate", json={"overlap_seconds": 0}).json()
    assert code(as_key(other).get("/v1/indexes")) == (401, "bad_key")
    assert as_key(ended["key"]).get("/v1/indexes").status_code == 200
    assert admin.delete(f"/v1/keys/{key_id}").status_code == 204
    for text in (first, rotated["key"]):
        assert code(as_key(text).get("/v1/indexes")) == (401, "bad_key")
    assert key_id not in {one["id"] for one in admin.get("/v1/keys").json()["keys"]}
    listed = admin.get("/v1/keys", params={"revoked": "true"}).text
    assert key_id in listed and first not in listed and "digest" not in listed
    assert code(admin.get("/v1/keys/none")) == (404, "key_not_found")


def test_another_process_learns_of_keys_and_of_their_end(
    admin: httpx.Client, make_key: Make, settings: Settings, eventually: Eventually,
    live_api: Callable[[Settings], AbstractContextManager[str]], free: int,
) -> None:  # fmt: skip
    with (
        live_api(settings.model_copy(update={"api_port": free})) as address,
        httpx.Client(timeout=30, base_url=address) as other,
    ):
        other.headers["authorization"] = f"Bearer {make_key(['search'])}"
        # the other API does not know the key yet and reads it from OpenSearch
        assert other.get("/v1/indexes").status_code == 200
        fresh = make_key(["search"])
        other.headers["authorization"] = f"Bearer {fresh}"
        eventually(lambda: other.get("/v1/indexes").status_code == 200, 60, "a new key is known elsewhere")
        admin.delete(f"/v1/keys/{fresh.split('_')[1]}")
        eventually(lambda: other.get("/v1/indexes").status_code == 401, 60, "it is revoked elsewhere")


def test_an_expired_key_opens_nothing(
    admin: httpx.Client, make_key: Make, as_key: As, eventually: Callable[..., None]
) -> None:
    # (on a busy machine the first request takes seconds)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 5))
    client = as_key(make_key(["search"], expires_at=moment))
    assert client.get("/v1/indexes").status_code == 200
    past = admin.post("/v1/keys", json={"name": "x", "scopes": ["search"], "expires_at": "2020-01-01T00:00:00Z"})
    assert code(past) == (422, "key_expired")
    eventually(lambda: client.get("/v1/indexes").status_code == 401, 60, "the key has expired")
    assert code(client.get("/v1/indexes")) == (401, "bad_key")


NOT_SOUND: list[dict[str, object]] = [
        {}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["root"]}, {"name": "x", "scopes": ["search"], "a": 1},
        {"name": "x", "scopes": ["search"], "indexes": ["../x"]}, {"name": "x", "scopes": ["search"], "indexes": []},
        {"name": "x", "scopes": ["search"], "indexes": ["a*b"]}, {"name": "x", "scopes": ["search"], "indexes": ["A"]},
        {"name": "x", "scopes": ["search"], "requests_per_second": 0}, {"name": "", "scopes": ["search"]},
        {"name": "x", "scopes": ["search"], "expires_at": "2999-01-01"},
        {"name": "x", "scopes": ["search", "ingest"], "filter": {"field": "a", "is": 1}},
        {"name": "x", "scopes": ["search"], "filter": {"field": "a", "match": "b"}},
    ]  # fmt: skip


def test_a_key_that_says_nothing_sound_is_not_made(admin: httpx.Client) -> None:
    for body in NOT_SOUND:
        assert admin.post("/v1/keys", json=body).status_code == 422, body


def test_the_command(admin: httpx.Client, admin_key: str, api_url: str, settings: Settings, as_key: As) -> None:
    def run(*words: str, key: str | None = admin_key) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "SPARSEWELL_ENCODER": "standin"}
        environment |= {"SPARSEWELL_API_KEY": key} if key else {"SPARSEWELL_ADMIN_KEY_FILE": settings.admin_key_file}
        return run_sparsewell(*words, "--api", api_url, environment=environment)

    made = run("keys", "create", "web shop", "-s", "search", "-i", "books", "--days", "30", key=None)
    assert made.returncode == 0, made.stderr
    text = made.stdout.strip()
    assert as_key(text).get("/v1/keys/self").json()["indexes"] == ["books"]
    key_id = text.split("_")[1]
    listed = run("keys", "list")
    assert key_id in listed.stdout and "web shop" in listed.stdout and text not in listed.stdout
    rotated = run("keys", "rotate", key_id, "--days", "0")
    assert as_key(rotated.stdout.strip()).get("/v1/indexes").status_code == 200
    assert as_key(text).get("/v1/indexes").status_code == 401
    assert run("keys", "revoke", key_id).returncode == 0
    assert as_key(rotated.stdout.strip()).get("/v1/indexes").status_code == 401
    refused = run("search", "x", "--index", "books", key=rotated.stdout.strip())
    assert refused.returncode == 1 and "bad_key" in refused.stderr and rotated.stdout.strip() not in refused.stderr


def test_the_python_client(admin: httpx.Client, make_key: Make, api_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.put("/v1/indexes/books")
    key = make_key(["search"])
    with Client(api_url, key=key) as client:
        assert [one.name for one in client.list_indexes()] == ["books"]
        with pytest.raises(Forbidden, match="insufficient_scope"):
            client.delete_index("books")
    monkeypatch.setenv("SPARSEWELL_API_KEY", key)
    with Client(api_url) as client:
        assert client.search("books", "x").hits == []
    monkeypatch.setenv("SPARSEWELL_API_KEY", generate_key("d" * 16))
    with Client(api_url) as client, pytest.raises(Unauthorized, match="bad_key"):
        client.list_indexes()


def test_keys_count_on_while_opensearch_is_away(settings: Settings) -> None:
    """The API keeps the keys that it has read, and the administrator's key needs no OpenSearch."""
    from starlette.testclient import TestClient

    from query_api.app import create_app
    from services.access.api_keys import ApiKey, KeySecret, digest_key
    from services.opensearch.key_records import StoredKey

    app = create_app(settings.model_copy(update={"opensearch_url": "http://127.0.0.1:9"}))
    text = generate_key("c" * 16)
    with TestClient(app) as client:
        unread = client.get("/v1/encoders", headers={"authorization": f"Bearer {text}"})
        assert code(unread) == (503, "opensearch_unavailable")
        ring = app.state.app_state.keys
        ring.update(
            [StoredKey(ApiKey("c" * 16, "x", ("search",), ("*",), None, 0, (KeySecret(digest_key(text), 0),)), 1, 1)]
        )
        for key in (text, admin_text(settings)):
            assert client.get("/v1/encoders", headers={"authorization": f"Bearer {key}"}).status_code == 200


def admin_text(settings: Settings) -> str:
    with open(settings.admin_key_file) as file:  # noqa: PTH123
        return file.read()


@pytest.fixture
def free() -> int:
    from infra.ports import find_free_port

    return find_free_port()
