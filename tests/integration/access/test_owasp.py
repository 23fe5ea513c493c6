"""OWASP's API Security Top 10 (2023): each attack fails, and succeeds once the control is removed.

SECURITY.md has the table. `test_every_row_of_the_table_has_an_attack` compares it with this module.
"""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

import query_api.access.oidc
import services.access.api_keys
from query_api.access.gate import PUBLIC_OPERATION
from query_api.access.rate_limit import RateLimiter
from query_api.app import create_app
from services.access.api_keys import ApiKey, generate_key
from services.access.document_level_security import DocumentLevelSecurity
from services.access.principals import Principal
from services.errors import ConfigurationError
from services.settings import Settings

Patch = pytest.MonkeyPatch
Make = Callable[..., str]
As = Callable[[str], httpx.Client]
TABLE = Path(__file__).parents[3] / "SECURITY.md"


@dataclass
class Target:
    """A service with keys, and an index `shared` with a document of each of two tenants."""

    admin: httpx.Client
    make_key: Make
    as_key: As
    settings: Settings


@pytest.fixture
def target(admin: httpx.Client, make_key: Make, as_key: As, settings: Settings) -> Target:
    assert admin.put("/v1/indexes/shared", json={"fields": {"tenant": "keyword"}}).status_code == 201
    for tenant in ("a", "b"):
        document = {"text": f"a chair of {tenant}", "metadata": {"tenant": tenant}}
        assert admin.put(f"/v1/indexes/shared/documents/{tenant}", json=document).status_code == 202
    return Target(admin, make_key, as_key, settings)


def api1_document_of_another(target: Target) -> bool:
    key = target.make_key(["search"], filter={"field": "tenant", "is": "a"})
    return target.as_key(key).get("/v1/indexes/shared/documents/b").status_code == 200


def without_api1_document(patch: Patch) -> None:
    patch.setattr(DocumentLevelSecurity, "filter_call", lambda self, call: call)
    patch.setattr(DocumentLevelSecurity, "filter_answer", lambda self, call, answer: answer)


def api1_index_of_another(target: Target) -> bool:
    key = target.make_key(["search"], indexes=["mine-*"])
    return target.as_key(key).get("/v1/indexes/shared/documents/b").status_code == 200


def without_api1_index(patch: Patch) -> None:
    patch.setattr(Principal, "demand_index", lambda self, index: None)


def api2_key_made_up(target: Target) -> bool:
    real = target.make_key(["search"])
    made_up = generate_key(real.split("_")[1])
    return target.as_key(made_up).get("/v1/indexes").status_code == 200


def without_api2(patch: Patch) -> None:
    patch.setattr(ApiKey, "accepts", lambda self, digest, now: True)


def api3_properties_of_a_key(target: Target) -> bool:
    """Send members that the caller must not set, and ask for a member that the caller must not see."""
    more = {"secrets": [{"digest": "0" * 64, "created_at": 0}], "id": "a" * 16}
    for name, value in more.items():
        body = {"name": "x", "scopes": ["search"], name: value}
        assert target.admin.post("/v1/keys", json=body).status_code == 422
    key_id = target.make_key(["search"]).split("_")[1]
    return "digest" in target.admin.get(f"/v1/keys/{key_id}").text


def without_api3(patch: Patch) -> None:
    patch.setattr("query_api.routes.keys.describe_key", lambda key: key.source())


def api4_as_much_as_one_likes(target: Target) -> bool:
    client = target.as_key(target.make_key(["search"], requests_per_second=0.01, burst=3))
    return all(client.get("/v1/indexes/shared/search?q=chair").status_code == 200 for _ in range(6))


def without_api4(patch: Patch) -> None:
    patch.setattr(RateLimiter, "admit", lambda self, who, amount=1: None)


def api5_function_of_an_administrator(target: Target) -> bool:
    target.admin.put("/v1/indexes/victim")
    return target.as_key(target.make_key(["search"])).delete("/v1/indexes/victim").status_code == 204


def without_api5(patch: Patch) -> None:
    patch.setattr(Principal, "demand_scope", lambda self, any_of: None)


def api6_everything_in_one_batch(target: Target) -> bool:
    """A key limits the searches of a day. A batch must not exceed that limit."""
    client = target.as_key(target.make_key(["search"], requests_per_day=10))
    batch = {"searches": [{"index": "shared", "query": "chair"}] * 50}
    return client.post("/v1/search/batch", json=batch).status_code == 200


def without_api6(patch: Patch) -> None:
    admit = RateLimiter.admit
    patch.setattr(RateLimiter, "admit", lambda self, who, amount=1: admit(self, who, 1))


def api7_an_address_to_fetch(target: Target) -> bool:
    """Callers may name the addresses of a recording, a player and a token's keys."""
    requested_paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested_paths.append(self.path)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        inner = f"http://127.0.0.1:{server.server_port}"
        index = f"talks-{server.server_port}"
        declared = {"talk": {"link": f"{inner}/{{id}}?t={{start}}"}}
        assert target.admin.put(f"/v1/indexes/{index}", json=declared).status_code == 201
        talk = {"kind": "talk", "text": "a talk", "url": f"{inner}/recording"}
        assert target.admin.put(f"/v1/indexes/{index}/documents/1", json=talk).status_code == 202
        target.admin.get(f"/v1/indexes/{index}/chapters/1")
        target.admin.post(f"/v1/indexes/{index}/search", json={"query": "talk"})
        head = {"jku": f"{inner}/jku", "x5u": f"{inner}/x5u", "kid": f"{inner}/kid"}
        target.as_key(jwt.encode({"iss": inner, "sub": "u"}, "x" * 64, "HS256", head)).get("/v1/indexes")
        if FETCHES:  # the control: the server records a client that fetches the given address
            httpx.get(f"{inner}/recording", timeout=30, trust_env=False)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    return bool(requested_paths)


FETCHES: list[bool] = []


def without_api7(patch: Patch) -> None:
    FETCHES.append(True)


def api8_open_by_an_oversight(target: Target) -> bool:
    plain = target.settings.model_copy(update={"admin_key_file": "", "api_host": "0.0.0.0"})  # noqa: S104
    try:
        create_app(plain)
    except ConfigurationError as error:
        return error.code != "access_undecided"
    return True


def without_api8(patch: Patch) -> None:
    patch.setattr(services.access.api_keys, "is_loopback_host", lambda host: True)


def api9_a_route_that_nobody_listed(target: Target) -> bool:
    from starlette.testclient import TestClient

    app = create_app(target.settings)

    @app.get("/old/documents", operation_id="old_documents")
    async def old_documents() -> dict[str, str]:
        return {"text": "everything"}

    with TestClient(app, raise_server_exceptions=False) as client:
        return "everything" in client.get("/old/documents").text


def without_api9(patch: Patch) -> None:
    from collections import defaultdict

    patch.setattr("query_api.access.gate.OPERATION_SCOPES", defaultdict(lambda: PUBLIC_OPERATION))
    patch.setattr("query_api.app.OPERATION_SCOPES", defaultdict(lambda: PUBLIC_OPERATION))


def api10_an_issuer_that_is_another(target: Target) -> bool:
    """The metadata at the issuer's address counts only if it names that issuer."""
    from starlette.testclient import TestClient

    from tests.integration.access.test_oidc import SmallIssuer

    issuer = SmallIssuer()
    address, issuer.name = issuer.url, "https://somebody.example"
    settings = target.settings.model_copy(update={"oidc_issuer": address, "oidc_audience": "sparsewell"})
    token = issuer.token(iss=address, scope="sparsewell:search")
    try:
        with TestClient(create_app(settings)) as client:
            answer = client.get("/v1/indexes", headers={"authorization": f"Bearer {token}"})
            return answer.status_code == 200
    finally:
        issuer.server.shutdown()
        issuer.server.server_close()
        issuer.thread.join()


def without_api10(patch: Patch) -> None:
    fetched = query_api.access.oidc.fetch_json

    async def believed(session: Any, address: str) -> dict[str, Any]:
        found = await fetched(session, address)
        return found | {"issuer": address.partition("/.well-known")[0]} if "issuer" in found else found

    patch.setattr(query_api.access.oidc, "fetch_json", believed)


ROWS: list[tuple[Callable[[Target], bool], Callable[[Patch], None]]] = [
    (api1_document_of_another, without_api1_document),
    (api1_index_of_another, without_api1_index),
    (api2_key_made_up, without_api2),
    (api3_properties_of_a_key, without_api3),
    (api4_as_much_as_one_likes, without_api4),
    (api5_function_of_an_administrator, without_api5),
    (api6_everything_in_one_batch, without_api6),
    (api7_an_address_to_fetch, without_api7),
    (api8_open_by_an_oversight, without_api8),
    (api9_a_route_that_nobody_listed, without_api9),
    (api10_an_issuer_that_is_another, without_api10),
]


@pytest.fixture
def patch() -> Iterator[Patch]:
    with Patch.context() as patch:
        yield patch
    FETCHES.clear()


@pytest.mark.parametrize(("attack", "without"), ROWS, ids=[attack.__name__ for attack, _ in ROWS])
def test_an_attack_fails_and_succeeds_without_the_control(
    target: Target, attack: Callable[[Target], bool], without: Callable[[Patch], None], patch: Patch
) -> None:
    assert not attack(target)
    without(patch)
    assert attack(target)


def test_every_row_of_the_table_has_an_attack() -> None:
    rows = re.findall(r"^\| API(\d+):2023 .*$", TABLE.read_text(), re.M)
    assert [int(row) for row in rows] == list(range(1, 11))
    named = re.findall(r"`(api\d+_\w+)`", TABLE.read_text())
    assert sorted(named) == sorted(attack.__name__ for attack, _ in ROWS)
    for file in re.findall(r"`(tests/[\w/.]+)`", TABLE.read_text()):
        assert (TABLE.parent / file).exists(), file
