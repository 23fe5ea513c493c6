"""Cursors as text: values that a client keeps for us between two pages, and cannot change where they are sealed."""

import base64
import hashlib
import hmac
from typing import Any

import orjson

# 128 bits: nobody guesses one, and a cursor stays short.
_SEAL_BYTES = 16


def encode_cursor(values: Any) -> str:
    """The values (JSON) as characters that need no escaping in a URL."""
    return _to_base64(orjson.dumps(values))


def decode_cursor(cursor: str) -> Any:
    """What `packed` made a text of. Raises ValueError; what comes out may still be anything that JSON holds."""
    return orjson.loads(_from_base64(cursor))


def seal_cursor(values: Any, key: bytes) -> str:
    """As `packed`, with a seal that only who has the key can make (BLAKE2b, keyed)."""
    content = orjson.dumps(values)
    return _to_base64(_compute_seal(content, key) + content)


def unseal_cursor(cursor: str, key: bytes) -> Any:
    """What `sealed` made a text of with the same key. Raises ValueError for all else, a changed character included."""
    whole = _from_base64(cursor)
    seal, content = whole[:_SEAL_BYTES], whole[_SEAL_BYTES:]
    if not hmac.compare_digest(seal, _compute_seal(content, key)):
        raise ValueError("the seal is another one")
    return orjson.loads(content)


def _compute_seal(content: bytes, key: bytes) -> bytes:
    # (a key of BLAKE2b has 64 bytes at most)
    return hashlib.blake2b(content, digest_size=_SEAL_BYTES, key=hashlib.sha256(key).digest()).digest()


def _to_base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _from_base64(text: str) -> bytes:
    # (binascii.Error and UnicodeEncodeError are ValueErrors)
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
