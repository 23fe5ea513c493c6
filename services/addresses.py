"""Addresses of servers: checked when they are read, and shown without the passwords that they may carry."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def http_address(host: str, port: int) -> str:
    """The address of an HTTP server; an IPv6 host gets its brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def each_address(urls: str) -> list[str]:
    """The addresses of a list that is separated by commas. (A password may hold a comma, so a scheme must follow.)"""
    return re.split(r"\s*,\s*(?=https?://)", urls.strip())


def redacted(urls: str) -> str:
    """The address, or several separated by commas, without users, passwords and queries: all may be secrets."""
    return ",".join(_redacted(url) for url in each_address(urls))


def _redacted(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(an address that cannot be read)"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def names_a_user(url: str) -> bool:
    """Whether the address has a user or a password within."""
    return "@" in urlsplit(url).netloc


def _checked(url: str, schemes: tuple[str, ...], example: str) -> str:
    # The message never repeats the value: it may hold a password.
    wanted = f"give an address such as {example}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        # (urllib's message about a port quotes it, and what it takes for a port may be part of a password)
        what = "its port is no number from 1 to 65535" if "ort" in str(error) else "it cannot be read"
        raise ValueError(f"{what}; {wanted}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}; {wanted}")
    if not parts.hostname or "," in parts.hostname or any(character.isspace() for character in url):
        raise ValueError(f"it names no host; {wanted}")
    if port == 0:
        raise ValueError(f"its port is no number from 1 to 65535; {wanted}")
    return url


def _opensearch(urls: str) -> str:
    example = "http://127.0.0.1:19200, or several separated by commas"
    return ",".join(_checked(url, ("http", "https"), example) for url in each_address(urls))


def _redis(url: str) -> str:
    # Not unix://: kombu, which carries the messages, does not know it.
    return _checked(url, ("redis", "rediss"), "redis://127.0.0.1:16379/0")


OpenSearchUrl = Annotated[str, AfterValidator(_opensearch)]
RedisUrl = Annotated[str, AfterValidator(_redis)]
