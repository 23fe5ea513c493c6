"""Index specifications, indexes and encoders.

Reading of HTTP responses: the body of a success, the error of a problem (RFC 9457).
"""

from http import HTTPStatus
from typing import Any, Literal

import httpx
from pydantic import BaseModel, Field

from sparsewell_client.errors import (
    BackendUnavailable,
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
from sparsewell_client.search_request import RequestModel

_KINDS: tuple[type[SparsewellError], ...] = (
    InvalidInput, TooLarge, TooSlow, UnsupportedMediaType, Unauthorized, Forbidden, NotFound, Conflict, Overloaded,
    BackendUnavailable, EncoderMismatch,
)  # fmt: skip
# Two classes have status 503; the title tells them apart.
_BY_TITLE = {(kind.status, kind.title): kind for kind in _KINDS}
_BY_STATUS = {kind.status: kind for kind in reversed(_KINDS)}
_PROBLEM_MEMBERS = frozenset({"type", "title", "detail", "code"})


def read_json(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a success; empty for a response without a body.

    Raises the error of a problem, and BackendUnavailable (`api_unavailable`) for a response that is not the API's.
    """
    if response.status_code == HTTPStatus.NO_CONTENT:
        return {}
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    raise problem_error(
        response.status_code, body if isinstance(body, dict) else {}, response.headers.get("retry-after")
    )


def read_text(response: httpx.Response) -> str:
    """Return the text of a success. Raises as `read_json`."""
    if not response.is_success:
        read_json(response)
    return response.text


def problem_error(status: int, body: dict[str, Any], retry_after: str | None) -> SparsewellError:
    """Make the error for a status and a problem's body. Other members of the body become its `extra`."""
    code = str(body.get("code", "api_unavailable"))
    detail = str(body.get("detail", f"What answers there is not sparsewell's API (status {status})."))
    extra = {name: value for name, value in body.items() if name not in _PROBLEM_MEMBERS}
    extra["status"] = status
    if retry_after and retry_after.isdigit():
        extra["retry_after"] = float(retry_after)
    kind = _BY_TITLE.get((status, str(body.get("title"))))
    if kind is None and ("code" not in body or status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        kind = BackendUnavailable
    return (kind or _BY_STATUS.get(status, InvalidInput))(code, detail, **extra)


def unreachable(address: str, error: Exception) -> BackendUnavailable:
    """Make the error for an API that does not answer."""
    return BackendUnavailable(
        "api_unavailable",
        f"No API answers at {address} ({type(error).__name__}): is it running, and is that its address?",
    )


FieldType = Literal["keyword", "text", "number", "date", "boolean"]


class WindowSettings(RequestModel):
    """Length of a window in pieces, without special pieces, and pieces that neighbouring windows share."""

    pieces: int
    overlap: int


class TalkSettings(RequestModel):
    """How talk is divided into chapters, scored and linked. A producer's own chapters are always kept."""

    chapters: Literal["tiling", "podtile", "none"] = Field(
        "tiling", description="engine that makes chapters when the producer gave none"
    )
    link: str | None = Field(
        None,
        description="template of a link that plays a talk, with `{url}`, `{id}` and `{start}` (seconds); "
        "null: `{url}#t={start}`",
    )
    titles_in_keywords: float = Field(0, description="lexical score: factor of BM25 over the titles of chapters")
    chapter_in_keywords: float = Field(0, description="lexical score: factor of the best chapter's score")
    passage_in_keywords: float = Field(0.5, description="lexical score: factor of the best passage's score")
    titles_in_vectors: bool = Field(False, description="encode the title of the chapter before each window")


class IndexSpec(RequestModel):
    """Specification of a new index. Every member has a default."""

    fields: dict[str, FieldType] = Field(default={}, description="declared metadata: name and type")
    encoder: str | None = Field(None, description="name of an encoder; null: the API's default")
    window: WindowSettings | None = Field(None, description="null: as the encoder's manifest recommends")
    document_top_k: int = Field(512, description="number of heaviest pieces of a document to index")
    windows: Literal["merged", "nested", "both"] = Field(
        "merged",
        description="vectors to search: one merged vector a document, one for each window, or both "
        "(the default for talk)",
    )
    language: Literal["english", "standard"] = Field("english", description="analyser of lexical search")
    dense: str | None = Field(None, description="dense encoder whose vectors are stored for reranking; null: none")
    talk: TalkSettings | None = Field(None, description="accept talk; an empty object takes the defaults")


class DenseIdentity(BaseModel):
    """The dense encoder of a generation, and the windows that it encodes."""

    name: str
    fingerprint: str
    width: int = Field(description="dimensions of a vector")
    window: WindowSettings


class IndexAnswer(BaseModel):
    """An index. `documents` counts documents by state."""

    name: str
    generation: int
    fields: dict[str, str]
    encoder: dict[str, str]
    window: dict[str, int]
    windows: str = Field(description="vectors to search: `merged`, `nested` or `both`")
    language: str
    document_top_k: int
    dense: DenseIdentity | None = Field(description="dense encoder for reranking; null: none")
    talk: TalkSettings | None = Field(None, description="null: talk is not accepted")
    suggests: bool = Field(description="whether suggestions work; false: the index must be reindexed for them")
    created_at: str
    documents: dict[str, int] | None = None


class IndexList(BaseModel):
    """All indexes that the key may see."""

    indexes: list[IndexAnswer]


class EncoderAnswer(BaseModel):
    """An encoder whose query table the API has."""

    name: str
    fingerprint: str
    default: bool = Field(description="whether new indexes get it by default")
    licence: str


class EncoderList(BaseModel):
    """All encoders whose query tables the API has."""

    encoders: list[EncoderAnswer]
