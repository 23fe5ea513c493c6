"""By which names a service may be asked that is open because only this machine reaches it.

A page of another site can have its own name point to 127.0.0.1 (DNS rebinding), and then the browser lets it read what
answers there; a proxy on this machine lets the world in. Both say a name of the public DNS as the host, which has dots.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache


def named_elsewhere(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request says such a name; one that says no host is by no browser."""
    return any(_is_public(value) for name, value in headers if name == b"host")


@lru_cache(maxsize=64)
def _is_public(host: bytes) -> bool:
    name = host.decode("latin-1").strip().lower()
    if name.startswith("["):  # an IPv6 address
        return False
    name = name.partition(":")[0].rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." in name and not name.endswith(".localhost")
    return False
