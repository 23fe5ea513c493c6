"""Answers of the API that the commands read, and paths and addresses that they refuse."""

import inspect

import httpx
import orjson
import pytest

import services.errors as tree
from cli.api_client import (
    error_from_problem,
    index_path,
    parse_api_url,
    quote_path_segment,
    read_json_response,
    read_text_response,
)
from services.errors import (
    BackendUnavailable,
    ConfigurationError,
    EncoderMismatch,
    InvalidInput,
    NotFound,
    SparsewellError,
)
from services.web.problems import problem_members

KINDS = [
    kind
    for kind in vars(tree).values()
    if inspect.isclass(kind) and issubclass(kind, SparsewellError) and kind not in (SparsewellError, ConfigurationError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_raised_again_as_its_own_class(kind: type[SparsewellError]) -> None:
    sent = kind("some_code", "What happened.", limit=7, rejected=[{"code": "bad_id"}])
    found = error_from_problem(sent.status, orjson.loads(orjson.dumps(problem_members(sent))), None)
    assert type(found) is kind
    assert (found.code, found.detail) == ("some_code", "What happened.")
    assert (found.extra["limit"], found.extra["rejected"]) == (7, [{"code": "bad_id"}])


def test_an_error_has_no_members_that_the_answer_lacks() -> None:
    assert error_from_problem(404, {"code": "index_not_found", "detail": "x"}, "3").extra == {
        "status": 404,
        "retry_after": 3,
    }


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (502, b"<html>bad gateway</html>", BackendUnavailable),
        (404, b"not here", BackendUnavailable),
        (200, b"[]", BackendUnavailable),
        (200, b"half of a {", BackendUnavailable),
        (500, b'{"code": "internal_error", "detail": "x", "title": "Internal error"}', BackendUnavailable),
        (418, b'{"code": "tea", "detail": "x"}', InvalidInput),
        (404, b'{"code": "index_not_found", "detail": "x"}', NotFound),
        (503, b'{"code": "encoder_mismatch", "detail": "x", "title": "Encoder mismatch"}', EncoderMismatch),
    ],
)
def test_a_bad_answer_is_an_error(status: int, body: bytes, kind: type[SparsewellError]) -> None:
    with pytest.raises(SparsewellError) as caught:
        read_json_response(httpx.Response(status, content=body))
    assert type(caught.value) is kind


def test_a_file_is_its_text_or_the_error() -> None:
    assert read_text_response(httpx.Response(200, text="WEBVTT\n")) == "WEBVTT\n"
    with pytest.raises(NotFound):
        read_text_response(httpx.Response(404, json={"code": "no_chapters", "detail": "x"}))


@pytest.mark.parametrize("address", ["localhost:8010", "ftp://x", "http://", "http://x:99999", "http://x:port", "://"])
def test_a_bad_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_api_url(address)
    assert caught.value.code == "bad_address"


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_is_a_path_step_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="which no address can name") as caught:
        index_path(name)
    assert caught.value.code == "invalid_request"
    assert index_path("...") == "/v1/indexes/..."


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        quote_path_segment("\ud800", "The name")
    assert caught.value.code == "not_utf8"
