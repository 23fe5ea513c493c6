"""Snapshots of our indexes as calls and readers; what they are put to is in `cli.backups`."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from services.index_spec import Generation, IndexNames
from services.opensearch.client import Call

SUCCESS, RUNNING = "SUCCESS", "IN_PROGRESS"
# A repository may be a bucket far away, and what is put right by query may be long: no answer comes before all is done.
SNAPSHOT_TIMEOUT_SECONDS = 900.0
_GENERATION = re.compile(r"-(?P<index>[a-z0-9][a-z0-9_-]*)\.g(?P<number>\d{6})")


@dataclass(frozen=True, slots=True)
class Backup:
    """A snapshot that we made. `generations` by user's index, `own` the small indexes beside them; physical names."""

    name: str
    state: str
    prefix: str
    began: int
    ended: int
    opensearch: str
    shards: int
    failed: int
    generations: Mapping[str, str]
    own: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return self.state == SUCCESS and not self.failed

    @property
    def began_at(self) -> str:
        return datetime.fromtimestamp(self.began / 1000, UTC).isoformat(timespec="seconds")

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "state": self.state, "began_at": self.began_at,
            "seconds": round(max(0, self.ended - self.began) / 1000, 1), "opensearch": self.opensearch,
            "shards": self.shards, "failed_shards": self.failed, "indexes": sorted(self.generations),
        }  # fmt: skip


def new_backup_name(names: IndexNames, now: datetime) -> str:
    """Of a backup: when it was made, to the second, in UTC."""
    return f"{names.prefix}-{now:%Y%m%dt%H%M%Sz}"


def get_repository_call(repository: str) -> Call:
    """Asks for a repository; answered with NotFound where it is not registered."""
    return Call("GET", _snapshot_path(repository))


def register_repository_call(repository: str, location: str) -> Call:
    """Registers a directory that all nodes share; OpenSearch tries it from each of them."""
    body = {"type": "fs", "settings": {"location": location, "compress": True}}
    return Call("PUT", _snapshot_path(repository), orjson.dumps(body))


def verify_repository_call(repository: str) -> Call:
    """Every node writes to the repository and reads what the others wrote."""
    return Call("POST", f"{_snapshot_path(repository)}/_verify", timeout=SNAPSHOT_TIMEOUT_SECONDS)


def system_indexes_call(names: IndexNames) -> Call:
    """Asks which of our own indexes there are, with and without their names. (Not the reindexes: see decision 0207.)"""
    own = ",".join((names.jobs, *(f"{name}.*" for name in (names.curation, names.queries, names.keys))))
    return Call("GET", f"/{own}", params={"ignore_unavailable": "true", "filter_path": "*.aliases"})


def read_system_indexes(answer: Mapping[str, Any], names: IndexNames) -> dict[str, str]:
    """By name which of our own indexes has it. One that is there without its name was never seen by anybody."""
    found = {physical: content.get("aliases", {}) for physical, content in (answer or {}).items()}
    used = {physical.partition(".")[0]: physical for physical in found if physical.partition(".")[0] in found[physical]}
    return used | ({names.jobs: names.jobs} if names.jobs in found else {})


def create_snapshot_call(
    repository: str, name: str, names: IndexNames, physical: Collection[str], version: str
) -> Call:
    """Begins a snapshot; `get_snapshots_call` tells how far it is."""
    body = {
        "indices": ",".join(physical),
        "include_global_state": False,
        "partial": False,
        "metadata": {"sparsewell": {"prefix": names.prefix, "version": version}},
    }
    return Call("PUT", _snapshot_path(repository, name), orjson.dumps(body), {"wait_for_completion": "false"})


def get_snapshots_call(repository: str, name: str = "_all") -> Call:
    """Asks for one snapshot, or all; what cannot be read is passed over."""
    return Call(
        "GET", _snapshot_path(repository, name), params={"ignore_unavailable": "true"}, timeout=SNAPSHOT_TIMEOUT_SECONDS
    )


def list_snapshot_names_call(repository: str) -> Call:
    """Asks for the names of all snapshots, those included that cannot be read."""
    return Call(
        "GET", _snapshot_path(repository, "_all"), params={"verbose": "false"}, timeout=SNAPSHOT_TIMEOUT_SECONDS
    )


def snapshot_status_call(repository: str, name: str) -> Call:
    """Reads what the repository has of each shard; fails where something of that is missing."""
    params = {"filter_path": "snapshots.state"}
    return Call("GET", f"{_snapshot_path(repository, name)}/_status", params=params, timeout=SNAPSHOT_TIMEOUT_SECONDS)


def delete_snapshot_call(repository: str, name: str) -> Call:
    """Removes a snapshot, and of its files those that no other one needs."""
    return Call("DELETE", _snapshot_path(repository, name), timeout=SNAPSHOT_TIMEOUT_SECONDS)


def restore_index_call(repository: str, name: str, physical: str, target: str) -> Call:
    """Begins to restore one index under the name `target`, without an alias: nobody sees it yet.

    Blocks may have been on it in the moment of the snapshot: a swap was under way, or the disk was full.
    """
    body = {
        "indices": physical,
        "rename_pattern": ".+",
        "rename_replacement": target,
        "include_global_state": False,
        "include_aliases": False,
        "partial": False,
        "ignore_index_settings": ["index.blocks.*"],
    }
    return Call(
        "POST", f"{_snapshot_path(repository, name)}/_restore", orjson.dumps(body), {"wait_for_completion": "false"}
    )


def index_health_call(physical: str) -> Call:
    """Asks how many of its primary shards an index has. (Its colour does not say that: one that is new is yellow.)"""
    return Call("GET", f"/_cluster/health/{physical}", params={"level": "indices"})


def record_generation_call(generation: Generation) -> Call:
    """Writes into a restored index which generation it is now."""
    body = {"_meta": {"sparsewell": generation.model_dump(mode="json")}}
    return Call("PUT", f"/{generation.physical}/_mapping", orjson.dumps(body))


def publish_restored_call(
    restored: Sequence[Generation], replaced: Sequence[Generation], own: Mapping[str, str]
) -> Call:
    """Gives all restored ones their aliases in one step, and takes them from those that they replace.

    `own`: the alias of each of our own that is restored.
    """
    actions: list[dict[str, Any]] = []
    for one in replaced:
        actions += [
            _alias_action("remove", one.physical, name, must_exist=False) for name in (one.alias, one.write_alias)
        ]
    for one in restored:
        actions += [_alias_action("add", one.physical, name) for name in (one.alias, one.write_alias)]
    actions += [_alias_action("add", physical, alias) for physical, alias in own.items()]
    return Call("POST", "/_aliases", orjson.dumps({"actions": actions}))


def forget_outcomes_call(jobs: str, since: int) -> Call:
    """Has requests with an Idempotency-Key executed again that were answered since (milliseconds since 1970).

    A job may say that documents are stored which the snapshot of their index came too early for. Executed again, under
    the same job and with the same versions, the request stores what is missing and nothing else.
    """
    body = {
        "query": {"range": {"created_at": {"gte": since}}},
        "script": {"source": "if (ctx._source.remove('outcome') == null) { ctx.op = 'noop' }"},
    }
    return Call("POST", f"/{jobs}/_update_by_query", orjson.dumps(body), _BY_QUERY_OPTIONS, SNAPSHOT_TIMEOUT_SECONDS)


def forget_jobs_call(jobs: str, indexes: Collection[str], since: int) -> Call:
    """Removes jobs and keys of these indexes that were made since: their documents are not there any more."""
    recent = {"range": {"created_at": {"gte": since}}}
    body = {"query": {"bool": {"filter": [{"terms": {"index": sorted(indexes)}}, recent]}}}
    return Call("POST", f"/{jobs}/_delete_by_query", orjson.dumps(body), _BY_QUERY_OPTIONS, SNAPSHOT_TIMEOUT_SECONDS)


def read_backups(answer: Mapping[str, Any], names: IndexNames | None = None) -> list[Backup]:
    """Those in an answer to `get_snapshots_call` that we made, the oldest first; with `names` those of this installation."""
    found = []
    for one in answer["snapshots"]:
        made = (one.get("metadata") or {}).get("sparsewell")
        prefix = made.get("prefix") if isinstance(made, dict) else None
        if not isinstance(prefix, str) or (names is not None and prefix != names.prefix):
            continue
        generations, own = {}, []
        for physical in one["indices"]:
            match = _GENERATION.fullmatch(physical.removeprefix(prefix))
            if match:
                generations[match["index"]] = physical
            else:
                own.append(physical)
        shards = one.get("shards", {})
        found.append(
            Backup(
                one["snapshot"],
                one["state"],
                prefix,
                one["start_time_in_millis"],
                one.get("end_time_in_millis") or 0,
                one.get("version", ""),
                shards.get("total", 0),
                shards.get("failed", 0),
                generations,
                tuple(sorted(own)),
            )
        )
    return sorted(found, key=lambda backup: (backup.began, backup.name))


_BY_QUERY_OPTIONS = {"refresh": "true", "conflicts": "proceed"}


def _alias_action(what: str, index: str, alias: str, **further: bool) -> dict[str, Any]:
    return {what: {"index": index, "alias": alias, **further}}


def _snapshot_path(repository: str, name: str = "") -> str:
    return "/_snapshot/" + "/".join(quote(part, safe="") for part in (repository, name) if part)
