"""Run each `curl` command of the documentation as it is printed, with its headers, page by page."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[4]
API_PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
OTHER_PAGES = [ROOT / "docs" / f"{name}.md" for name in ("curation", "security", "talk", "chapters")]
# What the texts name but do not make, with the status of their answers. `hA3k…` is a cursor of an earlier answer.
NOT_THERE = {"hA3k…": 422}
BOOKS = [
    {"id": f"b{number}", "title": "Book", "text": f"A whale and a captain {number}.", "metadata": {"year": 1900}}
    for number in range(1, 9)
]


def commands(page: Path) -> list[str]:
    """Return the `curl` commands of a page that address the service."""
    found = []
    for fence in re.finditer(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        found += re.split(r"^(?=curl |sparsewell |[A-Z_]+=)", fence[1], flags=re.MULTILINE)
    return [command.strip() for command in found if command.startswith("curl ") and "localhost:8010" in command]


def run(command: str, api_url: str, folder: Path) -> tuple[int, str]:
    """Run a command against another address. Return the status and the body of the answer."""
    address = api_url.removeprefix("http://")
    script = command.replace("curl ", "curl -sS -w '\\n%{http_code}' ", 1).replace("localhost:8010", address)
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True, timeout=60, cwd=folder)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


@pytest.fixture(scope="module")
def books(api: httpx.Client, encode: Callable[[], None]) -> None:
    """Make the index of the examples as docs/api/indexes.md declares it, and those that other pages make."""
    make_books(api, encode)
    for name, spec in {"films": {}, "talks": {"talk": {}}}.items():
        assert api.put(f"/v1/indexes/{name}", json=spec).status_code == 201


def make_books(api: httpx.Client, encode: Callable[[], None]) -> None:
    (create,) = (
        each for each in commands(ROOT / "docs/api/indexes.md") if "PUT localhost:8010/v1/indexes/books " in each
    )
    declaration = json.loads(create.partition("-d '")[2].rstrip("'"))
    assert api.put("/v1/indexes/books", json=declaration).status_code == 201
    assert api.post("/v1/indexes/books/documents", json=BOOKS).status_code == 202
    encode()


@pytest.mark.parametrize("page", [*API_PAGES, *OTHER_PAGES], ids=lambda page: page.stem)
def test_the_commands_of_a_page_work_as_printed(
    page: Path, api: httpx.Client, api_url: str, books: None, encode: Callable[[], None], tmp_path: Path
) -> None:
    if page.stem == "curation":  # Its first command replaces no rules.
        api.delete("/v1/indexes/books").raise_for_status()
        make_books(api, encode)
    (tmp_path / "books.jsonl").write_text("\n".join(map(json.dumps, BOOKS)), encoding="utf-8")
    key: dict[str, Any] = {}
    for command in commands(page):
        status, body = run(command.replace("KEY_ID", key.get("id", "KEY_ID")), api_url, tmp_path)
        expected = next((status for text, status in NOT_THERE.items() if text in command), None)
        assert status == expected if expected else status < 400, f"{command}\n{status} {body[:500]}"
        if "/v1/keys -H" in command:
            key = json.loads(body)
    encode()  # for the searches of the next page


def test_there_are_commands() -> None:
    assert sum(len(commands(page)) for page in [*API_PAGES, *OTHER_PAGES]) > 45


def test_a_body_without_a_media_type_is_refused(api_url: str, tmp_path: Path) -> None:
    """A command without its header fails, so the test above checks the headers."""
    command = """curl localhost:8010/v1/keys -d '{"name": "web shop", "scopes": ["search"]}'"""
    status, body = run(command, api_url, tmp_path)
    assert status == 415
    assert "`content-type: application/json`" in json.loads(body)["detail"]
