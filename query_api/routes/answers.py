"""Answers as bytes: bodies are built from checked values, so they are serialised once and not validated again."""

from typing import Any

import orjson
from fastapi.responses import Response

from query_api.models import Problem


def json_answer(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def documented(status: int, model: type | None, *problems: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of a path's answers."""
    answers: dict[int | str, dict[str, Any]] = {status: {"model": model} if model else {"description": "done"}}
    for code in problems:
        answers[code] = {"model": Problem}  # as problem+json, see `query_api.openapi`
        if code in (429, 503):
            answers[code]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "in seconds"}}
    return answers
