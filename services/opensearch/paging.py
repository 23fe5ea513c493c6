"""Paging: points in time, and cursors for the next page.

A point in time (OpenSearch 2.4 and later) is a frozen view: pages and exports read it while writes go on. A cursor is
JSON as URL-safe text that a client returns for the next page. A sealed cursor has a MAC (BLAKE2b, keyed, RFC 7693), so
that a client cannot change it. See docs/decisions/0165.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import orjson

from services.opensearch.client import Call

# 128 bits: infeasible to guess, and short.
_SEAL_BYTES = 16


def open_point_in_time_call(physical: Sequence[str], seconds: float, *, prefer_local: bool = False) -> Call:
    """Open a point in time over generations, kept for `seconds` after each use.

    It is complete or fails. By default OpenSearch answers 200 with only some of the shards if there is no room for all
    (`search.max_open_pit_context`), and every search would lack the other shards' documents.
    `prefer_local` as in `SearchPlan.options`.
    """
    params = {"keep_alive": _keep_alive(seconds), "allow_partial_pit_creation": "false"}
    if prefer_local:
        params["preference"] = "_local"
    return Call("POST", f"/{','.join(physical)}/_search/point_in_time", params=params)


def close_point_in_time_call(point_in_time: str) -> Call:
    """Close a point in time. Raises ValueError for `_all`, which OpenSearch takes for all points in time."""
    if point_in_time == "_all":
        raise ValueError("`_all` would close every point in time")
    return Call("DELETE", "/_search/point_in_time", orjson.dumps({"pit_id": [point_in_time]}))


def point_in_time_member(point_in_time: str, seconds: float) -> dict[str, Any]:
    """Return the member of a search body that searches a point in time, and keeps it for `seconds` more.

    The search names no index and no preference: the point in time has both.
    """
    return {"pit": {"id": point_in_time, "keep_alive": _keep_alive(seconds)}}


def _keep_alive(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def encode_cursor(values: Any) -> str:
    """Encode JSON values as text that needs no escaping in a URL."""
    return _to_base64(orjson.dumps(values))


def decode_cursor(cursor: str) -> Any:
    """Decode a cursor of `encode_cursor`. Raises ValueError. The caller checks the values: they may be any JSON."""
    return orjson.loads(_from_base64(cursor))


def seal_cursor(values: Any, key: bytes) -> str:
    """Encode JSON values as `encode_cursor` does, with a MAC of the key."""
    content = orjson.dumps(values)
    return _to_base64(_compute_seal(content, key) + content)


def unseal_cursor(cursor: str, key: bytes) -> Any:
    """Decode a cursor that `seal_cursor` sealed with the same key. Raises ValueError for any other text."""
    decoded = _from_base64(cursor)
    seal, content = decoded[:_SEAL_BYTES], decoded[_SEAL_BYTES:]
    if not hmac.compare_digest(seal, _compute_seal(content, key)):
        raise ValueError("the seal of the cursor is wrong")
    return orjson.loads(content)


def _compute_seal(content: bytes, key: bytes) -> bytes:
    # a BLAKE2b key has at most 64 bytes
    return hashlib.blake2b(content, digest_size=_SEAL_BYTES, key=hashlib.sha256(key).digest()).digest()


def _to_base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _from_base64(text: str) -> bytes:
    # binascii.Error and UnicodeEncodeError are ValueErrors
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
