"""Validate each `curl` example of the documentation against the committed OpenAPI document."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import pytest

DOCS = Path(__file__).parents[2] / "docs"
OPENAPI = json.loads((DOCS / "api" / "openapi.json").read_text())
_WORDS_OF = {"-X": 1, "-H": 1, "-d": 1, "--data-binary": 1}


@dataclass(frozen=True)
class Example:
    """A `curl` command of a page."""

    place: str
    method: str
    path: str
    parameters: frozenset[str]
    body: str | None


def examples() -> Iterator[Example]:
    pages = sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / "api").glob("*.md"))
    for page in (*pages, "curation.md", "loading.md", "security.md", "talk.md", "chapters.md"):
        text = (DOCS / page).read_text()
        for fence in re.finditer(r"^```bash\n(.*?)^```", text, re.S | re.M):
            line = text.count("\n", 0, fence.start()) + 1
            for command in re.split(r"^(?=curl |sparsewell |[A-Z_]+=)", re.sub(r"\\\n", " ", fence[1]), flags=re.M):
                if command.startswith("curl "):
                    yield _read(f"{page}:{line}", command)


def _read(place: str, command: str) -> Example:
    words = iter(shlex.split(command, comments=False)[1:])
    given, address = dict[str, str](), ""
    for word in words:
        if word in _WORDS_OF:
            given[word] = next(words)
        else:
            address = address or word
    url = urlsplit(f"http://{address}")
    method = given.get("-X", "POST" if "-d" in given or "--data-binary" in given else "GET").lower()
    return Example(place, method, url.path, frozenset(name for name, _ in parse_qsl(url.query)), given.get("-d"))


def _operation(example: Example) -> dict[str, Any]:
    for template, operations in OPENAPI["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), example.path) and example.method in operations:
            found: dict[str, Any] = operations[example.method]
            return found
    raise AssertionError(f"{example.place}: no such path: {example.method} {example.path}")


@pytest.mark.parametrize("example", list(examples()), ids=lambda one: f"{one.place} {one.method} {one.path}")
def test_an_example_is_what_the_service_takes(example: Example) -> None:
    operation = _operation(example)
    assert example.parameters <= {one["name"] for one in operation.get("parameters", ())}
    if example.body is None:
        return
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate(json.loads(example.body), schema | {"components": OPENAPI["components"]})


def test_there_are_examples() -> None:
    assert len(list(examples())) > 30
