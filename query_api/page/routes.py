"""Serves the search page at `/`, the operator's at `/operate` and their files, under a strict security policy."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fastapi import FastAPI, Request, Response

from services.errors import NotFound

STATIC_DIRECTORY: Final = Path(__file__).parent / "static"

MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)

# Documents are hostile. Nothing inline runs, nothing comes from or goes to another host, nobody frames the page, and
# `require-trusted-types-for` makes the browser refuse innerHTML and its kin even if a later change brings one in.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'"
)

SECURITY_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "content-security-policy": CONTENT_SECURITY_POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        # Kept, but asked about each time: an upgraded API never meets the scripts of an older page.
        "cache-control": "no-cache",
    }
)


@dataclass(frozen=True)
class PageFile:
    """One file of the page as it goes out: its bytes, media type and strong entity tag (quoted)."""

    content: bytes
    media_type: str
    etag: str


def read_page_files(directory: Path = STATIC_DIRECTORY) -> dict[str, PageFile]:
    """Reads every file of a known type in `directory` (not below it), by name."""
    files = {}
    for path in sorted(directory.iterdir()):
        media_type = MEDIA_TYPES.get(path.suffix)
        if media_type is not None:
            content = path.read_bytes()
            files[path.name] = PageFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:20]}"')
    return files


def client_has(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header (RFC 9110, 13.1.2: weak comparison) names `etag` or is `*`."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in re.findall(r'"[^"]*"', if_none_match)


def page_response(file: PageFile, if_none_match: str | None) -> Response:
    """The file with its headers, or 304 without a body when the client already has it."""
    headers = {**SECURITY_HEADERS, "etag": file.etag}
    if client_has(if_none_match, file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


def mount_page(app: FastAPI) -> None:
    """Adds `/`, `/operate`, `/favicon.ico` and `/static/{name}` to `app`, outside its OpenAPI document.

    The files are read once, here. An unknown name raises NotFound with the code `page_file_not_found`.
    """
    files = read_page_files()

    async def static(name: str, request: Request) -> Response:
        file = files.get(name)
        if file is None:
            raise NotFound("page_file_not_found", f"The search page has no file {name!r}. The page itself is at /.")
        return page_response(file, request.headers.get("if-none-match"))

    async def page(request: Request) -> Response:
        return await static("index.html", request)

    async def operate(request: Request) -> Response:
        return await static("operate.html", request)

    async def favicon(request: Request) -> Response:
        return await static("favicon.svg", request)

    for path, endpoint in (
        ("/", page),
        ("/operate", operate),
        ("/favicon.ico", favicon),
        ("/static/{name}", static),
    ):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
