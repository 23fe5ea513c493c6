"""Routes of the search page (`/`), the operator's page (`/operate`) and their files.

All files have a strict Content-Security-Policy, because indexed documents are untrusted.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from services.errors import NotFound

STATIC_DIRECTORY: Final = Path(__file__).parents[1] / "page" / "static"

# The types of the `mimetypes` module depend on the machine, and with `nosniff` a wrong type stops a script. Files of
# other types are not served.
MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
)

# Documents are untrusted. The browser runs no inline script, connects to no other host and allows no frame around the
# page. `require-trusted-types-for` makes it refuse innerHTML and similar sinks even if a later change adds one.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'"
)

SECURITY_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "content-security-policy": CONTENT_SECURITY_POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        # The browser revalidates files each time, so an upgraded API never meets the scripts of an older page.
        "cache-control": "no-cache",
    }
)


class PageFiles(StaticFiles):
    """The files of `directory` (not of its subdirectories), read once and served with the security headers.

    ETags are digests of the content, so that all processes of one version agree on them. Range headers are ignored.
    """

    def __init__(self, directory: Path = STATIC_DIRECTORY) -> None:
        super().__init__(directory=directory)
        self._contents = {
            str(path.resolve()): path.read_bytes() for path in directory.iterdir() if path.suffix in MEDIA_TYPES
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file `path`, or status 304 when the client has it. Raises NotFound (`page_file_not_found`)."""
        try:
            return await super().get_response(path, scope)
        except (HTTPException, KeyError):
            raise NotFound(
                "page_file_not_found", f"The search page has no file {path!r}. The page itself is at /."
            ) from None

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return the content read at the start. Raises KeyError for a file that is not served."""
        content = self._contents[str(full_path)]
        headers = {**SECURITY_HEADERS, "etag": f'"{hashlib.sha256(content).hexdigest()[:20]}"'}
        if self.is_not_modified(Headers(headers), Headers(scope=scope)):
            return Response(status_code=304, headers=headers)
        return Response(content, status_code, headers, MEDIA_TYPES[Path(full_path).suffix])


def mount_page(app: FastAPI) -> None:
    """Add the pages and their files to `app`, without entries in its OpenAPI document."""
    files = PageFiles()

    async def static(name: str, request: Request) -> Response:
        return await files.get_response(name, request.scope)

    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    async def operate(request: Request) -> Response:
        return await files.get_response("operate.html", request.scope)

    async def favicon(request: Request) -> Response:
        return await files.get_response("favicon.svg", request.scope)

    # Routes instead of a mount: authorisation and metrics identify operations by their routes.
    for path, endpoint in (
        ("/", page),
        ("/operate", operate),
        ("/favicon.ico", favicon),
        ("/static/{name}", static),
    ):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
