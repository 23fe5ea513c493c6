"""JSON bodies of requests: their media type, their encoding, and their parsing within bounds of time and memory.

`read_json_text` names a body that is compressed, in another encoding or of another media type. `JsonBody` validates a
body from its text. It lists the errors of a body only if they are few: a message takes two microseconds and a kilobyte,
and a body of 100 KB may have 100,000 errors (docs/decisions/0250).
"""

import asyncio
import json
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers

from services.errors import InvalidInput, UnsupportedMediaType
from services.text_encoding import detect_compression, explain_bytes, strip_byte_order_mark

MAX_LISTED_ERRORS: Final = 1000
# The validation of a longer body may take 100 ms, and parts of it let other threads run.
_LONG_BODY_BYTES: Final = 64 * 1024
_JSON_TYPE: Final = "application/json"


def read_media_type(headers: Headers) -> str:
    """Return the media type of a body without its parameters, in lower case."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def refuse_declared_compression(headers: Headers) -> None:
    """Raise UnsupportedMediaType (`unsupported_encoding`) for a compressed body."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedMediaType("unsupported_encoding", f"Send the body uncompressed, not as {coding[:40]!r}.")


def refuse_undeclared_compression(begin: bytes | bytearray) -> None:
    """Raise UnsupportedMediaType (`unsupported_encoding`) if a body begins as compressed data does."""
    compression = detect_compression(bytes(begin[:8]))
    if compression is not None:
        raise UnsupportedMediaType(
            "unsupported_encoding", f"The body is {compression}-compressed data: send it uncompressed."
        )


def is_json_type(media_type: str) -> bool:
    """Return whether a media type is JSON (RFC 6839: `application/problem+json` is)."""
    return media_type == _JSON_TYPE or (media_type.startswith("application/") and media_type.endswith("+json"))


def describe_media_type(media_type: str) -> str:
    """Return the end of a message about a header `content-type` that is missing or wrong."""
    return f"not {media_type[:80]!r}" if media_type else "which is missing"


def read_json_text(headers: Headers, body: bytes) -> bytes:
    """Return the JSON text of a body, without a byte order mark.

    Raises UnsupportedMediaType (`unsupported_media_type`, `unsupported_encoding`).
    """
    refuse_declared_compression(headers)
    media_type = read_media_type(headers)
    if not is_json_type(media_type):
        raise UnsupportedMediaType(
            "unsupported_media_type",
            f"Send the body as JSON with the header `content-type: {_JSON_TYPE}`, {describe_media_type(media_type)}.",
        )
    refuse_undeclared_compression(body)
    return strip_byte_order_mark(body)


class JsonBody:
    """A body of one type, validated from its JSON text."""

    def __init__(self, kind: Any) -> None:
        """`kind`: a pydantic model, or a union with None."""
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)

    async def validate(self, text: bytes) -> Any:
        """Validate a text, in a thread if it is long. Raises InvalidInput (`invalid_json`, `invalid_request`).

        Raises RequestValidationError with the errors and the decoded body if they are few.
        """
        if len(text) < _LONG_BODY_BYTES:
            return self._validate(text)
        return await asyncio.to_thread(self._validate, text)

    def _validate(self, text: bytes) -> Any:
        # No name holds an error that is raised: with its traceback it would hold the frame and itself, and 10 MB would
        # stay in memory until the collector comes by.
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            if not _is_syntax_error(error):
                raise _listed(error, json.loads(text)) from None
        value = _decode_lone_surrogates(text)
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise _listed(error, value) from None


def _is_syntax_error(error: ValidationError) -> bool:
    return error.error_count() == 1 and error.errors(include_url=False)[0]["type"] == "json_invalid"


def _listed(error: ValidationError, body: Any) -> Exception:
    """Return the error of an invalid body, with its single errors if they are few."""
    if error.error_count() > MAX_LISTED_ERRORS:
        return InvalidInput(
            "invalid_request",
            f"body: {error.error_count():,} values or members are invalid, more than are listed. "
            "/openapi.json describes the body.",
        )
    errors = [{**details, "loc": ("body", *details["loc"])} for details in error.errors(include_url=False)]
    return RequestValidationError(errors, body=body)


def _decode_lone_surrogates(text: bytes) -> Any:
    """Decode JSON that pydantic refuses: half of a surrogate pair is valid JSON, and has its own error code.

    Raises InvalidInput (`invalid_json`).
    """
    try:
        return json.loads(text.decode())  # From bytes, json.loads would also read UTF-16.
    except (ValueError, RecursionError) as error:
        reason = explain_bytes(text) or f"{error}."
        raise InvalidInput("invalid_json", f"The body is not JSON in UTF-8: {reason}") from None
