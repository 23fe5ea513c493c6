"""The text of a key, `sw_<id>_<secret>`, and what is kept of it.

The secret is 256 random bits, so nobody finds it by trying, whatever a hash costs: SHA-256 is as good as a slow
password hash here, and a thousand times cheaper on every request (docs/decisions/0200).
"""

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final

KEY_ID: Final = re.compile("[a-z2-7]{16}")
KEY: Final = re.compile(r"sw_([a-z2-7]{16})_([a-z2-7]{52})")
# A credential as an Authorization header takes it (RFC 6750, b64token).
TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_ID_BYTES, _SECRET_BYTES = 10, 32


def new_key_id() -> str:
    """80 random bits: it is no secret, and is never given twice."""
    return _text(_ID_BYTES)


def new_key(key_id: str) -> str:
    """The whole text of a key of that id."""
    return f"sw_{key_id}_{_text(_SECRET_BYTES)}"


def key_id(key: str) -> str | None:
    """The id in a key's text; None for what is not of the form."""
    found = KEY.fullmatch(key)
    return found[1] if found else None


def digest(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two digests are equal, in a time that does not tell how far they are."""
    return hmac.compare_digest(one, other)


def _text(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()
