"""Address and key of the API."""

import os

import httpx

from sparsewell_client.errors import ConfigurationError

KEY_VARIABLE = "SPARSEWELL_API_KEY"


def checked_address(address: str) -> str:
    """Return the address without a slash at its end. Raises ConfigurationError (`bad_address`)."""
    try:
        url = httpx.URL(address.rstrip("/"))
    except httpx.InvalidURL as error:
        raise ConfigurationError("bad_address", f"{address} is not an address: {error}.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("bad_address", f"{address} is not an http address.")
    if url.port is not None and not 0 < url.port <= 65535:
        raise ConfigurationError("bad_address", f"{address} is not an address: its port is not from 1 to 65535.")
    return str(url)


def key_headers(key: str | None) -> dict[str, str]:
    """Return the header with a key; None: the key in SPARSEWELL_API_KEY. Empty: no header."""
    if key is None:
        key = os.environ.get(KEY_VARIABLE, "")
    return {"authorization": f"Bearer {key}"} if key else {}
