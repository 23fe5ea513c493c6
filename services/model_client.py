"""The client of the model process: embeds queries and scores passages, within a deadline.

The process may be slow, wrong or unavailable. After a timeout of a model the client fails at once for two seconds
(circuit breaker), for this model only: a slow reranker does not stop the embedding of queries. It uses aiohttp with
persistent connections, like the OpenSearch client: httpx took half of a search's time (docs/decisions/0142).
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import numpy as np
import orjson

from services.access.api_keys import bearer_headers
from services.encoders.manifest import DenseIdentity
from services.encoders.vectors import DenseArray
from services.errors import BackendUnavailable
from services.telemetry import tracing

# After a timeout of a model, requests to it fail at once for this long, so that only the first of many searches waits.
CIRCUIT_OPEN_SECONDS = 2.0
# The dense encoder in the table of pauses. Rerankers have their own names there.
_DENSE = "dense"
_CONNECTIONS = 32
_MAX_RESPONSE_BYTES = 4 * 1024**2


class ModelClient:
    """A client, one for each API process.

    Every failure is BackendUnavailable with one of the codes `model_timeout`, `model_unavailable`, `model_resting`,
    `model_refused`, `model_mismatch`, `model_garbage`.
    """

    def __init__(
        self, url: str, timeout: float, key: str = "", *, reranker_timeouts: Mapping[str, float] | None = None
    ) -> None:
        """Prepare a client; it connects at the first request.

        `timeout` of a request in seconds; `reranker_timeouts` of rerankers by name, in seconds, take its place. `key`
        authenticates requests.
        """
        self._headers = {"content-type": "application/json"} | bearer_headers(key)
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._reranker_timeouts = dict(reranker_timeouts or {})
        self._session: aiohttp.ClientSession | None = None
        self._retry_at: dict[str, float] = {}

    async def embed(self, text: str, identity: DenseIdentity) -> DenseArray:
        """Return the vector [width] of a query from exactly the encoder that made the index's vectors."""
        body = {"encoder": identity.fingerprint, "texts": [text], "kind": "query"}
        answer = await self._request("/embed", body, _DENSE, self._timeout)
        if answer.get("fingerprint") != identity.fingerprint:
            raise _model_unavailable("model_mismatch", "The model process holds another dense encoder than the index.")
        return _parse_array(answer.get("vectors"), (1, identity.width)).reshape(identity.width)

    async def score(self, model: str, query: str, passages: Sequence[str]) -> DenseArray:
        """Return the relevance of each passage to the query, float32 [passages], from a reranker."""
        body = {"model": model, "query": query, "passages": list(passages)}
        answer = await self._request("/rerank", body, model, self._reranker_timeouts.get(model, self._timeout))
        return _parse_array(answer.get("scores"), (len(passages),))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, path: str, body: dict[str, Any], model: str, seconds: float) -> dict[str, Any]:
        if time.monotonic() < self._retry_at.get(model, 0.0):
            raise _model_unavailable(
                "model_resting", f"The model {model} did not answer a moment ago; its requests pause for two seconds."
            )
        try:
            async with asyncio.timeout(seconds):
                status, content = await self._send(path, orjson.dumps(body))
        except TimeoutError:
            self._retry_at[model] = time.monotonic() + CIRCUIT_OPEN_SECONDS
            raise _model_unavailable(
                "model_timeout", f"The model {model} did not answer within {seconds:g} s."
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _model_unavailable(
                "model_unavailable", f"The model process could not be reached ({type(error).__name__})."
            ) from None
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise _model_unavailable("model_garbage", f"The model process answered {status} without a JSON object.")
        if status != 200:
            raise _model_unavailable(
                "model_refused", f"The model process answered {status} ({str(answer.get('code'))[:80]})."
            )
        return answer

    async def _send(self, path: str, body: bytes) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        address, further = self._url + path, tracing.trace_headers()
        async with self._session.post(address, data=body, headers=further, allow_redirects=False) as answer:
            content = await answer.content.read(_MAX_RESPONSE_BYTES + 1)
            while len(content) <= _MAX_RESPONSE_BYTES and (more := await answer.content.read(_MAX_RESPONSE_BYTES + 1)):
                content += more
            if len(content) > _MAX_RESPONSE_BYTES:
                raise ValueError("the answer is too long")
            return answer.status, content


def _parse_array(value: Any, shape: tuple[int, ...]) -> DenseArray:
    """Return an array of that shape. Raises BackendUnavailable (`model_garbage`) unless all numbers are finite."""
    try:
        array = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        array = np.empty(0, dtype=np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise _model_unavailable("model_garbage", "The model process did not answer with the expected finite numbers.")
    return array


def _model_unavailable(code: str, detail: str) -> BackendUnavailable:
    return BackendUnavailable(code, detail)
