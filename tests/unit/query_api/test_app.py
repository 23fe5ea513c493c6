"""The committed OpenAPI document equals the document of the service."""

import json
from pathlib import Path

from query_api.app import create_app
from services.settings import Settings

COMMITTED = Path(__file__).parents[3] / "docs" / "api" / "openapi.json"


def test_the_committed_document_is_current() -> None:
    current = create_app(Settings(encoder="standin")).openapi()
    assert json.loads(COMMITTED.read_text()) == current, "run: make openapi"


def test_every_path_names_its_errors() -> None:
    for path, operations in json.loads(COMMITTED.read_text())["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/v1/"):
                assert operation["summary"], f"{method} {path}"
                assert any(code.startswith(("4", "5")) for code in operation["responses"]), f"{method} {path}"
