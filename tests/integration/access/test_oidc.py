"""Tokens of a small real issuer with its own keys, and every kind of invalid token."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.testclient import TestClient

from query_api.app import create_app
from services.errors import ConfigurationError
from services.settings import Settings
from tests.problem_counts import problems

As = Callable[[str], httpx.Client]


class SmallIssuer:
    """Publish keys, count the requests for them, and sign tokens."""

    def __init__(self) -> None:
        self.request_count = 0
        self.away = False
        self.moved = ""  # the address that its keys redirect to
        self.padding = 0  # bytes after its keys
        self.private: dict[str, Any] = {"one": rsa.generate_private_key(65537, 2048)}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.request_count += 1
                documents = {
                    "/.well-known/openid-configuration": {"issuer": issuer.name, "jwks_uri": f"{issuer.url}/keys"},
                    "/keys": {"keys": [issuer.public(kid) for kid in issuer.private]},
                }
                asked_for = self.path.removeprefix("/moved")
                content = json.dumps(documents.get(asked_for, {})).encode() + b" " * issuer.padding
                moved = issuer.moved and self.path == "/keys"
                self.send_response(503 if issuer.away else 302 if moved else 200)
                if moved:
                    self.send_header("location", issuer.moved)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                # (the response arrives in two pieces, as from a distant server)
                self.wfile.write(content[:30])
                time.sleep(0.02)
                with suppress(OSError):
                    self.wfile.write(content[30:])

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.name = self.url
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def public(self, kid: str) -> dict[str, Any]:
        key = self.private[kid].public_key()
        rsa_key = isinstance(key, rsa.RSAPublicKey)
        algorithm: Any = jwt.algorithms.RSAAlgorithm if rsa_key else jwt.algorithms.ECAlgorithm
        made: dict[str, Any] = algorithm.to_jwk(key, as_dict=True)
        return made | {"kid": kid, "use": "sig", "alg": "RS256" if rsa_key else "ES256"}

    def token(self, key: Any = None, kid: str | None = "one", algorithm: str = "RS256", **claims: Any) -> str:
        now = int(time.time())
        given = {
            "iss": self.url,
            "aud": "sparsewell",
            "sub": "user",
            "exp": now + 300,
            "scope": "openid sparsewell:search",
        }
        said = {name: value for name, value in (given | claims).items() if value is not None}
        headers = None if kid is None else {"kid": kid}
        return jwt.encode(said, self.private["one"] if key is None else key, algorithm=algorithm, headers=headers)


@pytest.fixture
def issuer() -> Iterator[SmallIssuer]:
    found = SmallIssuer()
    yield found
    found.server.shutdown()
    found.server.server_close()
    found.thread.join()


@pytest.fixture
def settings(settings: Settings, issuer: SmallIssuer) -> Settings:
    return settings.model_copy(
        update={
            "oidc_issuer": issuer.url,
            "oidc_audience": "sparsewell, other",
            "oidc_indexes_claim": "indexes",
            "oidc_filter": '{"field": "tenant", "any_of": {"claim": "tenants"}}',
        }
    )


def said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def test_claims_become_scopes_indexes_and_a_filter(admin: httpx.Client, as_key: As, issuer: SmallIssuer) -> None:
    fields = {"fields": {"tenant": "keyword"}}
    for index in ("shop-a", "other"):
        assert admin.put(f"/v1/indexes/{index}", json=fields).status_code == 201
    for tenant in ("a", "b"):
        admin.put(f"/v1/indexes/shop-a/documents/{tenant}", json={"text": "chair", "metadata": {"tenant": tenant}})
    admin.post("/v1/indexes/shop-a/search", json={"query": "chair"})
    client = as_key(
        issuer.token(indexes=["shop-*", "../x"], tenants=["a"], scope="sparsewell:search sparsewell:ingest")
    )
    assert client.get("/v1/keys/self").json() | {"id": ""} == {
        "id": "", "scopes": ["search"], "indexes": ["shop-*"], "filter": {"field": "tenant", "any_of": ["a"]},
    }  # fmt: skip
    assert client.get("/v1/indexes/shop-a/documents/a").status_code == 200
    assert said(client.get("/v1/indexes/shop-a/documents/b")) == (404, "document_not_found")
    assert said(client.get("/v1/indexes/other")) == (403, "index_forbidden")
    assert said(client.put("/v1/indexes/shop-a/documents/c", json={"text": "x"})) == (403, "insufficient_scope")
    assert said(as_key(issuer.token(indexes="shop-a")).get("/v1/indexes")) == (403, "claim_missing")
    assert said(as_key(issuer.token(tenants=["a"])).get("/v1/indexes")) == (200, "")
    assert as_key(issuer.token(tenants=["a"])).get("/v1/indexes").json() == {"indexes": []}
    operator = as_key(issuer.token(scope=["sparsewell:admin"], indexes=["*"]))
    assert operator.get("/v1/keys").status_code == 200
    assert operator.get("/v1/keys/self").json()["filter"] is None
    assert said(as_key(issuer.token(scope="admin search", tenants=["a"])).get("/v1/indexes"))[1] == "insufficient_scope"


def test_tokens_that_are_none(api: httpx.Client, as_key: As, issuer: SmallIssuer) -> None:
    now = int(time.time())
    stranger = rsa.generate_private_key(65537, 2048)
    pem = (
        issuer.private["one"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    right = issuer.token(tenants=["a"])
    head, body, signature = right.split(".")
    more = issuer.token(tenants=["b"], scope="sparsewell:admin").split(".")[1]
    # (the library refuses to sign with a public key, as the attack does)
    forged = jwt.PyJWS().encode(json.dumps(jwt.decode(right, options={"verify_signature": False})).encode(), b"x" * 64)
    bad = {
        "forged by a stranger": issuer.token(key=stranger, tenants=["a"]),
        "changed": f"{head}.{more}.{signature}",
        "cut": f"{head}.{body}.",
        "expired": issuer.token(tenants=["a"], exp=now - 60),
        "not yet": issuer.token(tenants=["a"], nbf=now + 120),
        "for another service": issuer.token(tenants=["a"], aud="somebody"),
        "for nobody": issuer.token(tenants=["a"], aud=None),
        "for ever": issuer.token(tenants=["a"], exp=None),
        "of another issuer": issuer.token(tenants=["a"], iss="https://id.example"),
        "of nobody": issuer.token(tenants=["a"], sub=None),
        "none": jwt.encode({"iss": issuer.url, "aud": "sparsewell", "sub": "u", "exp": now + 60}, None, "none"),
        "HS256": forged,
        "HS256 with the public key": hs256(right, pem),
        "of a key that nobody has": issuer.token(kid="two", tenants=["a"]),
        "of a key without a name": issuer.token(kid=None, tenants=["a"]),
        "RS512": issuer.token(algorithm="RS512", tenants=["a"]),
        "a word": "a.b.c",
    }
    assert as_key(right).get("/v1/indexes").status_code == 200
    requests_before, counted = issuer.request_count, problems("bad_token")
    for what, token in bad.items():
        answer = as_key(token).get("/v1/indexes")
        assert said(answer) == (401, "bad_token"), what
        assert 'error="invalid_token"' in answer.headers["www-authenticate"] and token not in answer.text
    assert issuer.request_count <= requests_before + 2  # one request for unknown keys
    assert problems("bad_token") == counted + len(bad)
    assert as_key(right).get("/v1/indexes").status_code == 200


def test_failures_of_an_address_stop_no_valid_token(api: httpx.Client, as_key: As, issuer: SmallIssuer) -> None:
    """Behind a proxy everybody has one address: also the user whose token is valid, and the one whose has expired."""
    stranger = rsa.generate_private_key(65537, 2048)
    forged = [said(as_key(issuer.token(key=stranger, tenants=["a"])).get("/v1/indexes")) for _ in range(25)]
    assert set(forged) == {(401, "bad_token"), (429, "too_many_failures")}
    assert as_key(issuer.token(tenants=["a"], jti="new")).get("/v1/indexes").status_code == 200
    expired = issuer.token(tenants=["a"], exp=int(time.time()) - 60)
    assert {said(as_key(expired).get("/v1/indexes")) for _ in range(25)} == {(401, "bad_token")}


def test_expired_tokens_are_no_failures(api: httpx.Client, as_key: As, issuer: SmallIssuer) -> None:
    expired = issuer.token(tenants=["a"], exp=int(time.time()) - 60)
    assert {said(as_key(expired).get("/v1/indexes")) for _ in range(25)} == {(401, "bad_token")}
    assert said(as_key("sw_unknown").get("/v1/indexes"))[0] == 401, "the address has failures left"


def test_verifications_are_bounded_for_all_addresses_together(
    settings: Settings, issuer: SmallIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query_api.access.gate.MAX_VERIFICATIONS_PER_SECOND", 0.01)
    with TestClient(create_app(settings)) as client:

        def ask(token: str) -> tuple[int, str]:
            return said(client.get("/v1/keys/self", headers={"authorization": f"Bearer {token}"}))

        first = issuer.token(tenants=["a"])
        assert ask(first) == (200, "")
        assert ask(issuer.token(tenants=["a"], jti="new")) == (429, "too_many_tokens")
        assert ask(first) == (200, ""), "a token that was verified costs no verification"


def hs256(token: str, pem: bytes) -> str:
    """Return the token signed with the issuer's public key as an HMAC secret."""
    import base64
    import hashlib
    import hmac

    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"one"}').rstrip(b"=").decode()
    signed = f"{head}.{token.split('.')[1]}"
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def test_a_new_key_of_the_issuer_is_learned_and_an_away_issuer_stops_nobody(
    admin: httpx.Client, as_key: As, issuer: SmallIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query_api.access.oidc.UNKNOWN_KEY_SECONDS", 0.0)
    assert as_key(issuer.token(tenants=["a"])).get("/v1/indexes").status_code == 200
    issuer.private["two"] = ec.generate_private_key(ec.SECP256R1())
    newer = issuer.token(key=issuer.private["two"], kid="two", algorithm="ES256", tenants=["a"])
    assert as_key(newer).get("/v1/indexes").status_code == 200
    issuer.away = True
    assert as_key(issuer.token(tenants=["b"])).get("/v1/indexes").status_code == 200
    assert said(as_key(issuer.token(kid="three", tenants=["a"])).get("/v1/indexes")) == (401, "bad_token")
    # the service's own keys continue to work
    assert admin.get("/v1/indexes").status_code == 200


def test_keys_are_read_where_the_issuer_says_and_no_further(api: httpx.Client, as_key: As, issuer: SmallIssuer) -> None:
    """A redirect may lead to any address, also to an internal one."""
    issuer.moved = f"{issuer.url}/moved/keys"
    assert said(as_key(issuer.token(tenants=["a"])).get("/v1/indexes")) == (503, "oidc_unavailable")


def test_an_answer_of_the_issuer_has_an_end(api: httpx.Client, as_key: As, issuer: SmallIssuer) -> None:
    issuer.padding = 3_000_000
    assert said(as_key(issuer.token(tenants=["a"])).get("/v1/indexes")) == (503, "oidc_unavailable")


def test_before_the_issuer_was_ever_reached(api: httpx.Client, as_key: As, issuer: SmallIssuer) -> None:
    issuer.away = True
    assert said(as_key(issuer.token(tenants=["a"])).get("/v1/indexes")) == (503, "oidc_unavailable")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"oidc_audience": ""}, "OIDC_AUDIENCE"),
        ({"oidc_algorithms": "RS256,none"}, "OIDC_ALGORITHMS"),
        ({"oidc_algorithms": "HS256"}, "OIDC_ALGORITHMS"),
        ({"oidc_issuer": "http://id.example"}, "https"),
        ({"oidc_filter": "{"}, "OIDC_FILTER"),
        ({"oidc_filter": '{"field": "_state", "is": "dead"}'}, "OIDC_FILTER"),
    ],
)
def test_settings_that_would_let_others_in_are_refused(settings: Settings, changed: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as refused:
        create_app(settings.model_copy(update=changed))
    assert refused.value.code == "bad_oidc"
