"""Full and incremental reads of the key cache."""

from typing import Any

import orjson
import pytest

from query_api.access.key_ring import FULL_RELOAD_SECONDS, KeyRing, time
from services.access.api_keys import ApiKey, KeySecret, digest_key, generate_key
from services.errors import BackendUnavailable
from services.index_spec import IndexNames
from services.opensearch.client import Call


class Store:
    """A store that returns the given keys as OpenSearch does."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[ApiKey, int]] = {}
        self.queries: list[Any] = []
        self.away = False

    def put(self, key_id: str, **more: Any) -> None:
        key = ApiKey(
            key_id, "n", ("search",), ("*",), None, 0, (KeySecret(digest_key(generate_key(key_id)), 0),), **more
        )
        self.keys[key_id] = key, len(self.queries) + len(self.keys)

    async def send(self, call: Call) -> Any:
        self.queries.append(orjson.loads(call.body or b"")["query"])
        if self.away:
            raise BackendUnavailable("opensearch_unavailable", "away")
        hits = [{"_source": key.source(), "_seq_no": n, "_primary_term": 1} for key, n in self.keys.values()]
        return {"hits": {"hits": hits}}


async def test_keys_are_cached_and_dropped_by_a_full_reload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    store = Store()
    store.put("a")
    ring = KeyRing(store, IndexNames("p"))  # type: ignore[arg-type]
    assert await ring.look_up("a") is not None
    for _ in range(100):  # unknown keys cause no request
        assert await ring.look_up("unknown") is None
    assert len(store.queries) == 1
    now += 1.5
    store.put("b")
    assert await ring.look_up("b") is not None and "range" in store.queries[-1]
    store.away, now = True, now + 10
    assert await ring.look_up("c") is None and await ring.current("a") is not None
    del store.keys["a"]
    store.away, now = False, now + FULL_RELOAD_SECONDS
    assert await ring.look_up("c") is None and "range" not in store.queries[-1]
    assert await ring.current("a") is None and await ring.current("b") is not None
    await ring.close()


async def test_before_the_first_reading_no_key_is_rejected() -> None:
    store = Store()
    store.away = True
    ring = KeyRing(store, IndexNames("p"))  # type: ignore[arg-type]
    with pytest.raises(BackendUnavailable):
        await ring.look_up("a")
    store.away = False
    store.put("a")
    assert await ring.look_up("a") is not None
    await ring.close()
