"""Every error leaves as problem+json (RFC 9457), mapped here and nowhere else."""

import logging
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from services.errors import Overloaded, SparsewellError

log = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
_ROUTING = {404: "no_such_path", 405: "method_not_allowed"}


def problem(
    status: int, title: str, code: str, detail: str, extra: dict[str, Any] | None = None, retry_after: int | None = None
) -> Response:
    """One problem+json answer."""
    body = {"type": f"urn:sparsewell:problem:{code}", "title": title, "status": status, "detail": detail, "code": code}
    headers = {"retry-after": str(retry_after)} if retry_after is not None else None
    return Response(orjson.dumps((extra or {}) | body), status, headers, PROBLEM)


def problem_of(error: SparsewellError) -> Response:
    """The answer for one of our errors; what may pass comes with Retry-After."""
    wait = 1 if isinstance(error, Overloaded) or error.retryable else None
    return problem(error.status, error.title, error.code, error.detail, error.extra, wait)


async def answer_of(_request: Request, error: Exception) -> Response:
    """The answer for one of our errors, which is logged when it is the service's fault."""
    assert isinstance(error, SparsewellError)  # noqa: S101 (registered for this class)
    if error.status >= 500:
        log.warning("%s: %s", error.code, error.detail)
    return problem_of(error)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for this class)
    found = error.errors()
    first = found[0]
    if first["type"] == "json_invalid":
        detail = f"The body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}."
        return problem(422, "Invalid input", "invalid_json", detail)
    errors = [{"where": ".".join(str(part) for part in e["loc"]), "message": e["msg"]} for e in found[:20]]
    detail = f"{errors[0]['where']}: {errors[0]['message']}"
    return problem(422, "Invalid input", "invalid_request", detail, {"errors": errors})


async def _routing(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for this class)
    if error.status_code == 400:  # the framework's word for a body that is not UTF-8, or nested beyond its parser
        return problem(422, "Invalid input", "invalid_json", "The body is not JSON in UTF-8.")
    code = _ROUTING.get(error.status_code, "http_error")
    answer = problem(
        error.status_code, str(error.detail), code, f"{error.detail}; the paths are listed in /openapi.json."
    )
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


async def _unforeseen(_request: Request, error: Exception) -> Response:
    log.error("unforeseen error %s", type(error).__name__, exc_info=error)
    return problem(500, "Internal error", "internal_error", "This is a fault of the server; its log has the details.")


def add_handlers(app: FastAPI) -> None:
    """Registers the mapping on an application."""
    app.add_exception_handler(SparsewellError, answer_of)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(Exception, _unforeseen)
