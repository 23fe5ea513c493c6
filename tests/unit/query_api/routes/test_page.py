"""The page's files without a server: the served files, and the validation of a client's copy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from query_api.routes.page import STATIC_DIRECTORY, PageFiles, mount_page
from services.errors import NotFound
from services.web.problems import add_handlers


@pytest.fixture
def http() -> Iterator[TestClient]:
    app = FastAPI()
    add_handlers(app)
    mount_page(app)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("*", 304),
        ("{etag}", 304),
        ("W/{etag}", 304),
        ('"other", {etag}', 304),
        ('"other"', 200),
        ("unquoted", 200),
    ],
)
def test_if_none_match(http: TestClient, header: str, status: int) -> None:
    whole = http.get("/static/app.js")
    answer = http.get("/static/app.js", headers={"if-none-match": header.format(etag=whole.headers["etag"])})
    assert answer.status_code == status
    assert answer.content == (b"" if status == 304 else whole.content)
    for name in ("etag", "cache-control", "content-security-policy"):
        assert answer.headers[name] == whole.headers[name]


def test_a_range_is_ignored(http: TestClient) -> None:
    for value in ("bytes=0-3", "bytes=9-1", "lines=1"):
        answer = http.get("/", headers={"range": value})
        assert (answer.status_code, answer.content) == (200, (STATIC_DIRECTORY / "index.html").read_bytes())


@pytest.mark.parametrize("name", ["missing.js", "%00", "%2e", "%2e%2e%5croutes.py", "a" * 300])
def test_other_names_are_not_found(http: TestClient, name: str) -> None:
    answer = http.get(f"/static/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_only_known_types_beside_the_page_are_served(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("page")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "page.html").write_text("below")
    (tmp_path / "link.html").symlink_to(Path(__file__))
    files = PageFiles(tmp_path)
    scope = {"type": "http", "method": "GET", "headers": []}
    answer = await files.get_response("page.html", scope)
    assert (answer.body, answer.headers["content-type"]) == (b"page", "text/html; charset=utf-8")
    for name in ("notes.txt", "below", "below/page.html", "../page.html", "link.html", str(tmp_path / "notes.txt")):
        with pytest.raises(NotFound, match="page_file_not_found"):
            await files.get_response(name, scope)


async def test_the_entity_tag_follows_the_content_and_not_the_time(tmp_path: Path) -> None:
    scope = {"type": "http", "method": "GET", "headers": []}
    tags = []
    for content in ("one", "one", "two"):
        (tmp_path / "page.html").write_text(content)
        tags.append((await PageFiles(tmp_path).get_response("page.html", scope)).headers["etag"])
    assert tags[0] == tags[1] != tags[2]
