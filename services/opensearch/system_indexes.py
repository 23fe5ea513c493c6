"""System indexes: the small indexes of the service itself.

`make_index_calls` builds the calls that create such an index at its first write. `read_system_indexes` tells a backup
which of them exist. Their records are in other modules of `services.opensearch`:

- API keys: `key_records`
- curation rules: `curation_records`
- piece frequencies: `frequency_records`
- learned queries: `suggestions`
- jobs: `jobs`; `generations.create_jobs_call` creates their index, without an alias
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from services.errors import Conflict
from services.index_spec import IndexNames
from services.opensearch.client import AsyncSearchClient, Call, SyncSearchClient

CreateIndexCalls = tuple[Call, Call, Call]


def make_index_calls(
    name: str, properties: dict[str, Any], replicas: int, settings: dict[str, Any] | None = None
) -> CreateIndexCalls:
    """Return the calls that create an index, wait for it and give it its alias, in this order. All are idempotent.

    OpenSearch answers the first one with a conflict if the index exists. The alias, which searches use, comes last,
    because a new index cannot be read for a moment. With `replicas`, every node has a copy, so that a search does not
    wait for a node that hangs.
    """
    copies = {"auto_expand_replicas": "0-all"} if replicas else {"number_of_replicas": 0}
    index_settings = {"number_of_shards": 1} | copies | (settings or {})
    body = {"settings": index_settings, "mappings": {"dynamic": False, "properties": properties}}
    index = f"{name}.1"
    aliases = {"actions": [{"add": {"index": index, "alias": name}}]}
    return (
        Call("PUT", f"/{index}", orjson.dumps(body)),
        Call("GET", f"/_cluster/health/{index}", params={"wait_for_status": "yellow"}),
        Call("POST", "/_aliases", orjson.dumps(aliases)),
    )


async def create_system_index(search: AsyncSearchClient, calls: CreateIndexCalls) -> None:
    """Send the calls of `make_index_calls`."""
    create, wait, add_alias = calls
    with suppress(Conflict):
        await search.send(create)
    await search.send(wait)
    await search.send(add_alias)


def create_system_index_sync(search: SyncSearchClient, calls: CreateIndexCalls) -> None:
    """Send the calls of `make_index_calls`, for commands."""
    create, wait, add_alias = calls
    with suppress(Conflict):
        search.send(create)
    search.send(wait)
    search.send(add_alias)


def system_indexes_call(names: IndexNames) -> Call:
    """Ask for the existing system indexes and their aliases, without the reindex records (docs/decisions/0207)."""
    patterns = ",".join((names.jobs, *(f"{name}.*" for name in (names.curation, names.queries, names.keys))))
    return Call("GET", f"/{patterns}", params={"ignore_unavailable": "true", "filter_path": "*.aliases"})


def read_system_indexes(answer: Mapping[str, Any], names: IndexNames) -> dict[str, str]:
    """Return the physical name of each system index by its name.

    An index without its alias is omitted: its creation was interrupted, so it was never read.
    """
    aliases = {physical: content.get("aliases", {}) for physical, content in (answer or {}).items()}
    named = {
        physical.partition(".")[0]: physical for physical in aliases if physical.partition(".")[0] in aliases[physical]
    }
    return named | ({names.jobs: names.jobs} if names.jobs in aliases else {})
