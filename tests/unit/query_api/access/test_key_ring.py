"""The key cache of a process, and the source of a request."""

import asyncio
import time
from dataclasses import replace
from typing import Any, cast

import pytest

from query_api.access import key_ring as module
from query_api.access.gate import request_source
from query_api.access.key_ring import KeyRing
from services.access.api_keys import ApiKey, KeySecret
from services.errors import BackendUnavailable
from services.index_spec import IndexNames
from services.opensearch.client import AsyncSearchClient
from services.opensearch.key_records import StoredKey, read_stored_keys

KEY = ApiKey("a" * 16, "shop", ("search",), ("*",), None, 1, (KeySecret("d", 1),))


class Store:
    """A store that returns keys, counts requests, and fails when `away` is set."""

    def __init__(self, *hits: dict[str, Any]) -> None:
        self.hits, self.request_count, self.away = list(hits), 0, False

    async def send(self, call: Any) -> Any:
        self.request_count += 1
        await asyncio.sleep(0)
        if self.away:
            raise BackendUnavailable("opensearch_unavailable", "away")
        return {"hits": {"hits": self.hits}}


def hit(key: ApiKey, number: int, **more: Any) -> dict[str, Any]:
    return {"_id": key.id, "_source": key.source() | more, "_seq_no": number, "_primary_term": 1}


def made(store: Store) -> KeyRing:
    return KeyRing(cast(AsyncSearchClient, store), IndexNames("p"))


async def lives(ring: KeyRing) -> bool:
    found = await ring.current(KEY.id)
    return found is not None and found.key.is_active(2)


@pytest.mark.asyncio
async def test_an_idle_process_reloads_keys_before_it_trusts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(hit(KEY, 1))
    ring = made(store)
    await ring.look_up(KEY.id)
    assert await lives(ring)
    store.hits = [hit(replace(KEY, revoked_at=2), 2)]
    later = time.monotonic() + 3600
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert not await lives(ring), "revoked while nothing was asked here"
    await ring.close()


@pytest.mark.asyncio
async def test_known_keys_stay_valid_while_the_store_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(hit(KEY, 1))
    ring = made(store)
    await ring.look_up(KEY.id)
    store.away = True
    later = time.monotonic() + 3600
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert await lives(ring)
    requests_before = store.request_count
    assert await lives(ring)
    assert store.request_count == requests_before, "it is not asked for each request"
    await ring.close()


@pytest.mark.asyncio
async def test_an_older_reading_does_not_undo_a_revocation() -> None:
    ring = made(Store())
    ring.update([StoredKey(replace(KEY, revoked_at=1), 7, 1)])
    ring.update([StoredKey(KEY, 6, 1)])
    assert not await lives(ring)
    await ring.close()


@pytest.mark.parametrize("more", [{"allowed_networks": ["10.0.0.0/8"]}, {"secrets": 3}, {"scopes": None}])
def test_a_key_with_unknown_members_is_invalid_and_affects_no_other(more: dict[str, Any]) -> None:
    """A key with an unknown limit must not be accepted without the limit."""
    other = replace(KEY, id="b" * 16)
    first, second = read_stored_keys({"hits": {"hits": [hit(KEY, 1, **more), hit(other, 2)]}})
    assert not first.key.accepts("d", 2)
    assert first.seq_no == 1
    assert second.key.accepts("d", 2)
    (read,) = read_stored_keys({"hits": {"hits": [hit(KEY, 1, later_member=None)]}})
    assert read.key == KEY, "what says nothing is no limit"


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("192.0.2.7", "192.0.2.7"), ("2001:db8::1", "2001:db8::/64"), ("2001:db8::2", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::1", "2001:db8::/64"), ("fe80::1%eth0", "fe80::/64"), ("testclient", "testclient"),
        ("::ffff:192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.8", "192.0.2.8"), ("x" * 65_000, "x" * 64),
    ],
)  # fmt: skip
def test_addresses_in_the_same_network_share_a_source(host: str, told: str) -> None:
    assert request_source({"client": (host, 1)}) == told
