"""Small indexes of the service's own, made when they are first written to."""

from contextlib import suppress
from typing import Any

import orjson

from services.errors import Conflict
from services.opensearch.client import AsyncSearch, Call, SyncSearch

MakeCalls = tuple[Call, Call, Call]


def make_calls(
    name: str, properties: dict[str, Any], replicas: int, settings: dict[str, Any] | None = None
) -> MakeCalls:
    """Create an index, wait for it, give it its name: in this order, each harmless twice.

    The first is answered with a conflict when it exists. It gets its name (an alias) last, because an index that has
    just been made cannot be read for a moment, and searches read it. With `replicas` it has a copy on every node, so
    that a search does not wait for a node that hangs.
    """
    copies = {"auto_expand_replicas": "0-all"} if replicas else {"number_of_replicas": 0}
    shape = {"number_of_shards": 1} | copies | (settings or {})
    body = {"settings": shape, "mappings": {"dynamic": False, "properties": properties}}
    index = f"{name}.1"
    named = {"actions": [{"add": {"index": index, "alias": name}}]}
    return (
        Call("PUT", f"/{index}", orjson.dumps(body)),
        Call("GET", f"/_cluster/health/{index}", params={"wait_for_status": "yellow"}),
        Call("POST", "/_aliases", orjson.dumps(named)),
    )


async def make(search: AsyncSearch, calls: MakeCalls) -> None:
    """Sends what `make_calls` gave."""
    create, wait, named = calls
    with suppress(Conflict):
        await search.send(create)
    await search.send(wait)
    await search.send(named)


def make_now(search: SyncSearch, calls: MakeCalls) -> None:
    """The same for commands."""
    create, wait, named = calls
    with suppress(Conflict):
        search.send(create)
    search.send(wait)
    search.send(named)
