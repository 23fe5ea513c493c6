"""The page's files over HTTP: headers, caching, and no inline or foreign code."""

from collections.abc import Iterator
from html.parser import HTMLParser

import httpx
import pytest

from query_api.routes.page import MEDIA_TYPES, STATIC_DIRECTORY


@pytest.fixture
def http(seeded: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=seeded, timeout=30, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/operate", "text/html; charset=utf-8"),
        ("/static/app.js", "text/javascript; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/favicon.svg", "image/svg+xml"),
        ("/favicon.ico", "image/svg+xml"),
    ],
)
def test_every_file_has_its_type_and_the_security_headers(http: httpx.Client, path: str, media_type: str) -> None:
    response = http.get(path).raise_for_status()
    assert response.headers["content-type"] == media_type
    policy = [directive.strip() for directive in response.headers["content-security-policy"].split(";")]
    assert policy[0] == "default-src 'self'"
    assert "unsafe" not in response.headers["content-security-policy"]
    assert {"frame-ancestors 'none'", "base-uri 'none'", "object-src 'none'", "form-action 'self'"} <= set(policy)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"


def test_an_unchanged_file_is_answered_with_304(http: httpx.Client) -> None:
    etag = http.get("/static/app.js").headers["etag"]
    known = http.get("/static/app.js", headers={"if-none-match": etag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    assert http.get("/static/app.js", headers={"if-none-match": '"another"'}).status_code == 200
    assert http.get("/").headers["etag"] != etag


def test_head_answers_without_a_body(http: httpx.Client) -> None:
    response = http.head("/")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) == len(http.get("/").content)


@pytest.mark.parametrize("name", ["missing.js", "..%2froutes.py", "%2e%2e%2froutes.py", "..%5croutes.py"])
def test_only_the_files_of_the_page_are_served(http: httpx.Client, name: str) -> None:
    response = http.get(f"/static/{name}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] in {"page_file_not_found", "no_such_path"}


def test_the_openapi_document_leaves_the_page_out(http: httpx.Client) -> None:
    assert [
        path
        for path in http.get("/openapi.json").json()["paths"]
        if not path.startswith(("/v1", "/healthz", "/readyz", "/version"))
    ] == []


class Markup(HTMLParser):
    """A parser that finds markup which breaks the policy or loads foreign content."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.links: list[str] = []
        self._in: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        for name, value in attrs:
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")
            if name in {"src", "href", "action"} and value:
                self.links.append(value)

    def handle_data(self, data: str) -> None:
        if self._in in {"script", "style"} and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize("page", ["index.html", "operate.html"])
def test_the_markup_has_nothing_inline_and_names_only_files_that_exist(page: str) -> None:
    markup = Markup()
    markup.feed((STATIC_DIRECTORY / page).read_text())
    assert markup.inline == []
    served = {f"static/{file.name}" for file in STATIC_DIRECTORY.iterdir()}
    known = served | {"./", "operate", "#results", "#letters", "openapi.json"}
    assert [link for link in markup.links if link not in known] == []


def test_the_folder_holds_only_files_that_are_served() -> None:
    assert {path.suffix for path in STATIC_DIRECTORY.iterdir()} == set(MEDIA_TYPES)


def test_no_script_parses_strings_as_markup() -> None:
    for file in STATIC_DIRECTORY.glob("*.js"):
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert sink not in file.read_text(), f"{file.name} uses {sink}"
