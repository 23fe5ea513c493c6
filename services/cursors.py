"""Cursors: JSON values as URL-safe text that a client returns for the next page.

A sealed cursor has a MAC (BLAKE2b, keyed, RFC 7693), so that a client cannot change it.
"""

import base64
import hashlib
import hmac
from typing import Any

import orjson

# 128 bits: infeasible to guess, and short.
_SEAL_BYTES = 16


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
