"""What a broken connection to OpenSearch died of, where that can be said without naming hosts."""

import ssl
from collections.abc import Iterator
from typing import Any

from opensearchpy.exceptions import ConnectionError  # noqa: A004 (the library's name)


def tls_failure(error: Exception) -> str | None:
    """Why there was no secure connection; None when the error is none of TLS."""
    if not isinstance(error, ConnectionError):
        return None
    for one in _causes(error.info, 0):
        # (aiohttp's own error is one of ssl's by its class, without what those say)
        if isinstance(one, ssl.SSLCertVerificationError) and (told := getattr(one, "verify_message", "")):
            # (after the comma: the names of hosts)
            return f"its certificate is not trusted ({told.partition(',')[0].rstrip('.')})"
        if isinstance(one, ssl.SSLError) and (reason := getattr(one, "reason", None)):
            return str(reason).replace("_", " ").lower()
    return None


def _causes(error: Any, depth: int) -> Iterator[BaseException]:
    """An error and those that it was made from: aiohttp and urllib3 keep them in different places."""
    if not isinstance(error, BaseException) or depth > 6:
        return
    yield error
    for inner in (*error.args, error.__cause__, error.__context__):
        yield from _causes(inner, depth + 1)
