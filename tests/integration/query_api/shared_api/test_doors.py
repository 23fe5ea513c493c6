"""Answers of every operation to unknown parameters, other methods, and bodies of another type or encoding.

The operations are those of the OpenAPI document, so a new one is tested as well.
"""

import codecs
import gzip
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

JSON = {"content-type": "application/json"}
MISSPELT = "versoin"
DOCUMENT = "/v1/indexes/docs/documents/a"
# Values of the parameters in a path.
PLACES = {"index": "docs", "document_id": "a", "job_id": "j", "key_id": "k", "version": "1"}
RULES = {"synonyms": [{"words": ["film", "movie"]}]}
# A body that each operation accepts. `{é}` stands where a text may be.
BODIES: dict[str, Any] = {
    "create_index": {"fields": {"year": "number"}},
    "put_curation": {"rules": RULES, "note": "é"},
    "dry_run_curation": {"rules": RULES, "queries": ["é"]},
    "retry_dead_letters": {"ids": ["é"]},
    "retry_dead": {"ids": ["é"]},
    "ingest": [{"id": "b", "text": "é"}],
    "put_document": {"text": "é"},
    "add_queries": {"queries": [{"query": "é"}]},
    "search": {"query": "é"},
    "create_key": {"name": "é", "scopes": ["search"]},
    "rotate_key": {"overlap_seconds": 1},
    "search_across": {"query": "é", "indexes": ["docs"]},
    "search_batch": {"searches": [{"index": "docs", "query": "é"}]},
}
Operation = tuple[str, str, str, bool]


@pytest.fixture(scope="module")
def operations(api: httpx.Client) -> list[Operation]:
    """Return method, path, name of each operation, and whether it takes a body."""
    found = []
    for template, methods in api.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            found.append(
                (method.upper(), template.format(**PLACES), operation["operationId"], "requestBody" in operation)
            )
    assert len(found) > 35
    return found


@pytest.fixture
def docs(api: httpx.Client) -> None:
    api.put("/v1/indexes/docs", json={"fields": {"year": "number"}}).raise_for_status()
    api.put(DOCUMENT, json={"text": "A whale."}).raise_for_status()


def content(operation: str, encode: Callable[[str], bytes] = str.encode) -> bytes:
    return encode(orjson.dumps(BODIES[operation]).decode())


def test_an_unknown_parameter_is_refused_by_every_operation(
    api: httpx.Client, docs: None, operations: list[Operation], subtests: pytest.Subtests
) -> None:
    for method, path, name, takes_body in operations:
        with subtests.test(name):
            body = content(name) if takes_body else None
            answer = api.request(
                method, path, params={MISSPELT: "0"}, content=body, headers=JSON if takes_body else None
            )
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
            assert f"query.{MISSPELT}" in answer.json()["detail"]
    # Neither the document nor the index was deleted.
    assert api.get(DOCUMENT).json()["text"] == "A whale."


def test_a_parameter_that_is_given_twice_is_refused(api: httpx.Client, docs: None) -> None:
    """The last value would count: `?version=9&version=6` would delete what the first value protects."""
    answer = api.delete(f"{DOCUMENT}?version=9&version=6")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"] == "query.version: is given more than once."
    listed = api.get("/v1/indexes/docs/export?state=pending&state=dead")
    assert listed.status_code == 200, "a list may have several values"
    assert api.get(DOCUMENT).json()["text"] == "A whale."
    assert api.get("/v1/keys").json()["keys"] == []


def test_a_wrong_parameter_names_the_known_ones(api: httpx.Client, docs: None) -> None:
    answer = api.delete(DOCUMENT, params={MISSPELT: "0"})
    assert "`version`, `wait`, `wait_seconds`" in answer.json()["detail"]
    assert "takes none" in api.get("/healthz", params={MISSPELT: "0"}).json()["detail"]


def test_other_methods_are_refused_with_those_that_there_are(
    api: httpx.Client, operations: list[Operation], subtests: pytest.Subtests
) -> None:
    by_path: dict[str, set[str]] = {}
    for method, path, _, _ in operations:
        by_path.setdefault(path, set()).add(method)
    del by_path["/v1/keys/self"]  # It is a key's path as well.
    for path, methods in by_path.items():
        allowed = methods | ({"HEAD"} if "GET" in methods else set())
        for method in {"PATCH", *{"GET", "POST", "PUT", "DELETE"} - methods}:
            with subtests.test(f"{method} {path}"):
                answer = api.request(method, path)
                assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
                assert set(answer.headers["allow"].split(", ")) == allowed


def test_head_is_answered_as_get(
    api: httpx.Client, docs: None, operations: list[Operation], subtests: pytest.Subtests
) -> None:
    for method, path, name, _ in operations:
        if method != "GET" or name == "status":
            continue
        with subtests.test(name):
            got, headed = api.get(path), api.head(path)
            assert (headed.status_code, headed.content) == (got.status_code, b"")
            assert headed.headers["content-type"] == got.headers["content-type"]


def test_a_body_has_a_media_type(
    api: httpx.Client, docs: None, operations: list[Operation], subtests: pytest.Subtests
) -> None:
    for method, path, name, takes_body in operations:
        if not takes_body:
            continue
        for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}, {"content-type": "text/plain"}):
            with subtests.test(f"{name} {headers}"):
                answer = api.request(method, path, content=content(name), headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
                assert "`content-type: application/json`" in answer.json()["detail"]


ENCODINGS: dict[str, tuple[Callable[[str], bytes], int, str, str]] = {
    "UTF-16": (lambda text: text.encode("utf-16"), 422, "invalid_json", "UTF-16"),
    "UTF-16 without a mark": (lambda text: text.encode("utf-16-le"), 422, "invalid_json", "UTF-16"),
    "Latin-1": (lambda text: text.encode("latin-1"), 422, "invalid_json", "Latin-1"),
    "gzip": (lambda text: gzip.compress(text.encode()), 415, "unsupported_encoding", "gzip"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_in_another_encoding_is_called_that(
    api: httpx.Client, docs: None, operations: list[Operation], subtests: pytest.Subtests, encoding: str
) -> None:
    encode, status, code, name = ENCODINGS[encoding]
    for method, path, operation, takes_body in operations:
        if not takes_body or (encoding == "Latin-1" and "é" not in content(operation).decode()):
            continue
        with subtests.test(operation):
            answer = api.request(method, path, content=content(operation, encode), headers=JSON)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert name in answer.json()["detail"]


def test_lines_in_another_encoding_are_called_that(api: httpx.Client, docs: None) -> None:
    path, lines = "/v1/indexes/docs/documents", '{"id":"é","text":"é"}\n{"id":"e","text":"e"}\n'
    headers = {"content-type": "application/x-ndjson"}
    for encoding in ("UTF-16", "gzip"):
        encode, status, code, name = ENCODINGS[encoding]
        answer = api.post(path, content=encode(lines), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert name in answer.json()["detail"]
    answer = api.post(path, content=lines.encode("latin-1"), headers=headers)
    assert answer.json()["accepted"] == ["e"]
    assert "Latin-1" in answer.json()["rejected"][0]["reason"]
    assert api.post(path, content=codecs.BOM_UTF8 + lines.encode(), headers=headers).json()["accepted"] == ["é", "e"]


def test_a_byte_order_mark_is_read_by_every_operation(
    api: httpx.Client, docs: None, operations: list[Operation], subtests: pytest.Subtests
) -> None:
    for method, path, name, takes_body in operations:
        if not takes_body:
            continue
        with subtests.test(name):
            headers = JSON | ({"if-match": "*"} if name == "put_curation" else {})
            marked = api.request(method, path, content=codecs.BOM_UTF8 + content(name), headers=headers)
            plain = api.request(method, path, content=content(name), headers=headers)
            assert marked.status_code == plain.status_code
            assert marked.json().get("code") == plain.json().get("code")
            assert marked.status_code < 300 or marked.json()["code"] in ("key_not_found", "index_exists")
    for key in api.get("/v1/keys").json()["keys"]:
        api.delete(f"/v1/keys/{key['id']}").raise_for_status()
