"""Client of the REST API for the commands.

It holds the address and the connection, a client of one resource of an index, the errors read back from problem details
(RFC 9457), and checks of text that goes into a request.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import Field, SecretStr

from services.access.api_keys import bearer_headers, read_key_file
from services.errors import (
    BackendUnavailable,
    ConfigurationError,
    Conflict,
    EncoderMismatch,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    SparsewellError,
    TooLarge,
    TooSlow,
    Unauthorized,
    UnsupportedMediaType,
)
from services.settings import EnvironmentSettings, Settings, format_http_address

_ERROR_CLASSES: tuple[type[SparsewellError], ...] = (
    InvalidInput, TooLarge, TooSlow, UnsupportedMediaType, Unauthorized, Forbidden, NotFound, Conflict, Overloaded,
    BackendUnavailable, EncoderMismatch,
)  # fmt: skip
# Several classes share a status (503). The title tells them apart.
_BY_TITLE = {(kind.status, kind.title): kind for kind in _ERROR_CLASSES}
_BY_STATUS = {kind.status: kind for kind in reversed(_ERROR_CLASSES)}
_PROBLEM_MEMBERS = frozenset({"type", "title", "detail", "code"})


class ClientSettings(EnvironmentSettings):
    """Settings of the commands that call the API; services do not read them."""

    api_key: SecretStr = Field(SecretStr(""), description="sent to the API")


class IndexResource:
    """A resource of an index in the API. Raises SparsewellError with the code and detail of the API."""

    def __init__(self, api_url: str | None, index: str, name: str) -> None:
        self._base = api_address(Settings.read(), api_url)
        self._path = f"{index_path(index)}/{name}"

    def request(
        self,
        method: str,
        path: str = "",
        parameters: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request to a path below the resource and return the JSON answer."""
        return read_json_response(self._send(method, path, params=parameters, json=body, headers=headers))

    def download(self, path: str, parameters: dict[str, Any]) -> str:
        """Return the text of a file that the API makes."""
        return read_text_response(self._send("GET", path, params=parameters))

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with connect_api(self._base, timeout=60) as client, raise_unreachable(self._base):
            return client.request(method, self._path + path, **arguments)


def api_address(settings: Settings, api_url: str | None) -> str:
    """Return the address of --api, or else of the settings, without a trailing slash."""
    return (api_url or format_http_address(settings.api_host, settings.api_port)).rstrip("/")


def parse_api_url(base: str) -> httpx.URL:
    """Parse the address of an API. Raises ConfigurationError (`bad_address`)."""
    try:
        url = httpx.URL(base.rstrip("/"))
    except httpx.InvalidURL as error:
        raise ConfigurationError("bad_address", f"{base} is not an address: {error}.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("bad_address", f"{base} is not an http address.")
    if url.port is not None and not 0 < url.port <= 65535:
        raise ConfigurationError("bad_address", f"{base} is not an address: its port is not from 1 to 65535.")
    return url


def connect_api(base: str, timeout: float | httpx.Timeout) -> httpx.Client:
    """Return a client of the API, with SPARSEWELL_API_KEY if it is set and without a proxy. Raises `bad_address`."""
    return httpx.Client(base_url=parse_api_url(base), timeout=timeout, trust_env=False, headers=own_key_headers())


def own_key_headers() -> dict[str, str]:
    """Return headers with SPARSEWELL_API_KEY; empty without a key."""
    key = ClientSettings.read().api_key.get_secret_value()
    return bearer_headers(key) if key else {}


def admin_headers(settings: Settings) -> dict[str, str]:
    """Return headers with SPARSEWELL_API_KEY, or else with the key of SPARSEWELL_ADMIN_KEY_FILE."""
    own = own_key_headers()
    if own or not settings.admin_key_file:
        return own
    return bearer_headers(next(iter(read_key_file(settings.admin_key_file, "SPARSEWELL_ADMIN_KEY_FILE"))))


def index_path(index: str) -> str:
    """Return the escaped path of an index. Raises InvalidInput (`not_utf8`, `invalid_request`)."""
    return f"/v1/indexes/{quote_path_segment(index, 'The name of the index')}"


def quote_path_segment(text: str, name: str) -> str:
    """Escape a text as one segment of a path. Raises InvalidInput (`not_utf8`; `invalid_request` for `.` and `..`).

    `.` and `..` are steps of a path even if they are escaped: a request that deletes document `..` would delete its
    index.
    """
    if text in (".", ".."):
        raise InvalidInput("invalid_request", f"{name} is {text}, which no address can name.")
    return quote(require_utf8(text, name), safe="")


def require_utf8(text: str, name: str) -> str:
    """Return the text unchanged. Raises InvalidInput (`not_utf8`) for half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("not_utf8", f"{name} is not text in UTF-8.") from None
    return text


def require_writable(path: Path) -> None:
    """Make the directory of a file and check that the file can be written. An existing file does not change.

    Raises ConfigurationError (`unwritable_file`).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise ConfigurationError("unwritable_file", f"{path} cannot be written: {error.strerror}.") from None


def request_json(client: httpx.Client, base: str, method: str, path: str, **arguments: Any) -> dict[str, Any]:
    """Send a request to the API at `base` and return the JSON answer.

    Raises BackendUnavailable (`api_unavailable`) if no API answers, and as `read_json_response`.
    """
    with raise_unreachable(base):
        return read_json_response(client.request(method, path, **arguments))


@contextmanager
def raise_unreachable(base: str) -> Iterator[None]:
    """Raise BackendUnavailable (`api_unavailable`) for a request of the block that gets no answer."""
    try:
        yield
    except httpx.HTTPError as error:
        raise BackendUnavailable(
            "api_unavailable",
            f"No API answers at {base} ({type(error).__name__}): start it with `sparsewell up`, or use --api.",
        ) from None


def read_json_response(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a successful answer, or an empty object for an answer without a body.

    Raises the error of problem details, and BackendUnavailable (`api_unavailable`) if another service answered.
    """
    if response.status_code == HTTPStatus.NO_CONTENT:
        return {}
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    raise error_from_problem(
        response.status_code, body if isinstance(body, dict) else {}, response.headers.get("retry-after")
    )


def read_text_response(response: httpx.Response) -> str:
    """Return the text of a successful answer. Raises as `read_json_response`."""
    if not response.is_success:
        read_json_response(response)
    return response.text


def read_bulk_answer(send: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer to documents, with `accepted` and `rejected`, also if all documents were refused."""
    try:
        return send()
    except InvalidInput as error:
        if error.code != "no_document_accepted":
            raise
        return {"accepted": [], "rejected": error.extra.get("rejected", [])}


def error_from_problem(status: int, body: dict[str, Any], retry_after: str | None) -> SparsewellError:
    """Return the error for a status and problem details.

    `extra` holds the further members of the problem, and `retry_after` in seconds.
    """
    code = str(body.get("code", "api_unavailable"))
    detail = str(body.get("detail", f"The answer is not from sparsewell's API (status {status})."))
    extra = {name: value for name, value in body.items() if name not in _PROBLEM_MEMBERS}
    extra["status"] = status
    if retry_after and retry_after.isdigit():
        extra["retry_after"] = float(retry_after)
    kind = _BY_TITLE.get((status, str(body.get("title"))))
    if kind is None and ("code" not in body or status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        kind = BackendUnavailable
    return (kind or _BY_STATUS.get(status, InvalidInput))(code, detail, **extra)
