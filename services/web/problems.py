"""Every error leaves as problem+json (RFC 9457), mapped here and nowhere else."""

import logging
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from services.errors import SparsewellError
from services.telemetry.metrics import PROBLEMS

log = logging.getLogger(__name__)

PROBLEM_CONTENT_TYPE = "application/problem+json"
REQUEST_TIMEOUT_STATUS = 408
_ROUTING = {404: "no_such_path", 405: "method_not_allowed"}


def problem_response(status: int, title: str, code: str, detail: str, extra: dict[str, Any] | None = None) -> Response:
    """One problem+json answer."""
    return members_response(_build_members(status, title, code, detail, extra or {}))


def problem_members(error: SparsewellError) -> dict[str, Any]:
    """The members of the answer for one of our errors; what may pass says when to come again."""
    extra = ({"retry_after": 1} if error.retryable else {}) | error.extra
    return _build_members(error.status, error.title, error.code, error.detail, extra)


def count_problem(body: dict[str, Any]) -> dict[str, Any]:
    """The members of an error that somebody is told, counted by its code."""
    PROBLEMS.labels(body["code"]).inc()
    return body


def members_response(body: dict[str, Any]) -> Response:
    """The answer with these members; `retry_after` (seconds) is a header as well."""
    count_problem(body)
    headers = {}
    if "retry_after" in body:
        headers["retry-after"] = str(body["retry_after"])
    if body["status"] in (401, 403):
        headers["www-authenticate"] = _challenge(body)
    if body["status"] == REQUEST_TIMEOUT_STATUS:  # nobody waits for the rest of a slow body
        headers["connection"] = "close"
    return Response(orjson.dumps(body), body["status"], headers, PROBLEM_CONTENT_TYPE)


def _challenge(body: dict[str, Any]) -> str:
    """How one is to say who one is (RFC 6750, 3): without an error where nothing was said."""
    parts = ['Bearer realm="sparsewell"']
    if body["code"] == "insufficient_scope":
        parts += ['error="insufficient_scope"', f'scope="{" ".join(body["scopes"])}"']
    elif body["status"] == 401 and body["code"] != "no_credentials":
        parts.append('error="invalid_token"')
    return ", ".join(parts)


def _build_members(status: int, title: str, code: str, detail: str, extra: dict[str, Any]) -> dict[str, Any]:
    named = {"type": f"urn:sparsewell:problem:{code}", "title": title, "status": status, "detail": detail}
    return extra | named | {"code": code}


def error_response(error: SparsewellError) -> Response:
    """The answer for one of our errors."""
    return members_response(problem_members(error))


def error_members(error: Exception) -> dict[str, Any]:
    """The members of the answer for any error; what is the service's fault is logged."""
    if isinstance(error, SparsewellError):
        if error.status >= 500:
            log.warning("%s: %s", error.code, error.detail)
        return problem_members(error)
    if isinstance(error, RequestValidationError | ValidationError):
        return _invalid(error.errors())
    log.error("unforeseen error %s", type(error).__name__, exc_info=error)
    detail = "This is a fault of the server; its log has the details."
    return _build_members(500, "Internal error", "internal_error", detail, {})


async def answer_error(_request: Request, error: Exception) -> Response:
    """The answer for any error but those of the framework's routing."""
    return members_response(error_members(error))


def _invalid(found: Sequence[Any]) -> dict[str, Any]:
    first = found[0]
    if first["type"] == "json_invalid":
        detail = f"The body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}."
        return _build_members(422, "Invalid input", "invalid_json", detail, {})
    errors = [{"where": ".".join(str(part) for part in e["loc"]), "message": e["msg"]} for e in found[:20]]
    detail = f"{errors[0]['where']}: {errors[0]['message']}"
    return _build_members(422, "Invalid input", "invalid_request", detail, {"errors": errors})


async def _routing(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for this class)
    if error.status_code == 400:  # the framework's word for a body that is not UTF-8, or nested beyond its parser
        return problem_response(422, "Invalid input", "invalid_json", "The body is not JSON in UTF-8.")
    code = _ROUTING.get(error.status_code, "http_error")
    answer = problem_response(
        error.status_code, str(error.detail), code, f"{error.detail}; the paths are listed in /openapi.json."
    )
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


def add_handlers(app: FastAPI) -> None:
    """Registers the mapping on an application."""
    app.add_exception_handler(SparsewellError, answer_error)
    app.add_exception_handler(RequestValidationError, answer_error)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(Exception, answer_error)
