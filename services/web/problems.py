"""Error responses in problem+json (RFC 9457), the only place where errors are mapped to HTTP."""

import logging
from collections.abc import Sequence
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from services.errors import SparsewellError
from services.telemetry.metrics import PROBLEMS
from services.web.validation_errors import describe_errors

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

log = logging.getLogger(__name__)

PROBLEM_CONTENT_TYPE = "application/problem+json"
METHOD_NOT_ALLOWED_STATUS = 405
REQUEST_TIMEOUT_STATUS = 408
_MAX_LISTED_ERRORS = 20
_ROUTING = {404: "no_such_path", 405: "method_not_allowed"}


def add_handlers(app: FastAPI) -> None:
    """Register the error mapping on an application."""
    app.add_exception_handler(SparsewellError, answer_error)
    app.add_exception_handler(RequestValidationError, answer_error)
    app.add_exception_handler(HTTPException, _answer_routing_error)
    app.add_exception_handler(Exception, answer_error)


async def answer_error(_request: Request, error: Exception) -> Response:
    """Return the response to any error except the framework's routing errors."""
    return members_response(error_members(error))


def error_members(error: Exception) -> dict[str, Any]:
    """Return the members of the response to any error, and log the errors that are the service's fault."""
    if isinstance(error, SparsewellError):
        if error.status >= 500:
            log.warning("%s: %s", error.code, error.detail)
        return problem_members(error)
    if isinstance(error, RequestValidationError):
        request = {} if error.body is None else {"request": {"body": error.body}}
        return _validation_members(error.errors(), **request)
    if isinstance(error, ValidationError):
        return _validation_members(error.errors())
    log.error("unexpected error %s", type(error).__name__, exc_info=error)
    detail = "This is a fault of the server; its log has the details."
    return _build_members(500, "Internal error", "internal_error", detail, {})


def _validation_members(details: Sequence[Any], **request: Any) -> dict[str, Any]:
    errors = describe_errors(details, **request)[:_MAX_LISTED_ERRORS]
    detail = f"{errors[0]['where']}: {errors[0]['message']}"
    return _build_members(422, "Invalid input", "invalid_request", detail, {"errors": errors})


def problem_members(error: SparsewellError) -> dict[str, Any]:
    """Return the members of the response to one of our errors; retryable ones have `retry_after` (seconds)."""
    extra = ({"retry_after": 1} if error.retryable else {}) | error.extra
    return _build_members(error.status, error.title, error.code, error.detail, extra)


def error_response(error: SparsewellError) -> Response:
    """Return the response to one of our errors."""
    return members_response(problem_members(error))


def problem_response(status: int, title: str, code: str, detail: str, extra: dict[str, Any] | None = None) -> Response:
    """Return a problem+json response."""
    return members_response(_build_members(status, title, code, detail, extra or {}))


def _build_members(status: int, title: str, code: str, detail: str, extra: dict[str, Any]) -> dict[str, Any]:
    standard = {"type": f"urn:sparsewell:problem:{code}", "title": title, "status": status, "detail": detail}
    return extra | standard | {"code": code}


def members_response(body: dict[str, Any]) -> Response:
    """Return the response with these members; `retry_after` (seconds) is also sent as a header."""
    count_problem(body)
    headers = {}
    if "retry_after" in body:
        headers["retry-after"] = str(body["retry_after"])
    if body["status"] in (401, 403):
        headers["www-authenticate"] = _challenge(body)
    if body["status"] == REQUEST_TIMEOUT_STATUS:  # the rest of a slow body is not read
        headers["connection"] = "close"
    return Response(orjson.dumps(body), body["status"], headers, PROBLEM_CONTENT_TYPE)


def _challenge(body: dict[str, Any]) -> str:
    """Return the WWW-Authenticate value (RFC 6750, section 3), without an error for a request without credentials."""
    parts = ['Bearer realm="sparsewell"']
    if body["code"] == "insufficient_scope":
        parts += ['error="insufficient_scope"', f'scope="{" ".join(body["scopes"])}"']
    elif body["status"] == 401 and body["code"] != "no_credentials":
        parts.append('error="invalid_token"')
    return ", ".join(parts)


def count_problem(body: dict[str, Any]) -> dict[str, Any]:
    """Count an error that is reported to a client by its code, and return its members."""
    PROBLEMS.labels(body["code"]).inc()
    return body


async def _answer_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for this class)
    if error.status_code == 400:  # the framework's status for a body that is not UTF-8 or nested too deeply
        return problem_response(422, "Invalid input", "invalid_json", "The body is not JSON in UTF-8.")
    code = _ROUTING.get(error.status_code, "http_error")
    if error.status_code == METHOD_NOT_ALLOWED_STATUS:
        methods = ", ".join(list_methods(request.app.router.routes, request.scope))
        detail = f"This path does not take {request.method[:20]}. It takes {methods}."
        answer = problem_response(error.status_code, str(error.detail), code, detail)
        answer.headers["allow"] = methods
        return answer
    answer = problem_response(
        error.status_code, str(error.detail), code, f"{error.detail}; /openapi.json lists the paths."
    )
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


def list_methods(routes: list[BaseRoute], scope: Scope) -> list[str]:
    """Return the methods that a path takes, in a fixed order. `scope` is that of any request for the path."""
    taken = [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ["GET", "HEAD", *taken[1:]] if "GET" in taken else taken
