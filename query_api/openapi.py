"""The OpenAPI document as the service really answers: every refusal is problem+json, whatever the framework assumes."""

from typing import Any

from fastapi import FastAPI

from query_api.access.operations import OPERATIONS, PUBLIC
from query_api.models import Problem

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
# The framework documents its own refusal of parameters, which `services.web.problems` answers in another form.
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")

_OF_KEYS = {"401": "Unauthorized", "403": "Forbidden", "429": "Too Many Requests"}


class Api(FastAPI):
    """FastAPI, but for its document."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once. A test sends generated requests to every operation and holds answers against it."""
        if self.openapi_schema is None:
            self.openapi_schema = _as_answered(super().openapi())
        return self.openapi_schema


def _as_answered(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    for name in _FRAMEWORKS_OWN:
        schemas.pop(name, None)
    schemas.setdefault("Problem", Problem.model_json_schema())
    document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    for operations in document["paths"].values():
        for operation in operations.values():
            if OPERATIONS[operation["operationId"]] is not PUBLIC:
                operation["security"] = [{"bearer": []}, {}]  # (none where the service is open)
                for status, name in _OF_KEYS.items():
                    operation["responses"].setdefault(status, {"description": name})
            for status, answer in operation["responses"].items():
                if status.startswith(("4", "5")):
                    answer["content"] = _PROBLEM
                    if answer["description"] == "Validation Error":
                        answer["description"] = "Unprocessable Entity"
    return document
