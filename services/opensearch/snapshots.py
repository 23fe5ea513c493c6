"""Snapshots of this installation's indexes: repositories, backups and restores, as calls and readers.

A backup is one OpenSearch snapshot with the installation's prefix and version in its metadata. A restore creates the
indexes without aliases and publishes all in one step. `cli.backup` runs both. See docs/decisions/0207.
"""

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
# Repositories may be remote and by-query updates long, and OpenSearch answers only when they are done.
SNAPSHOT_TIMEOUT_SECONDS = 900.0
_BY_QUERY_OPTIONS = {"refresh": "true", "conflicts": "proceed"}
_GENERATION = re.compile(r"-(?P<index>[a-z0-9][a-z0-9_-]*)\.g(?P<number>\d{6})")


@dataclass(frozen=True, slots=True)
class Backup:
    """Snapshot made by this project.

    `generations` maps indexes to physical names; `system_indexes` holds the physical names of the system indexes.
    """

    name: str
    state: str
    prefix: str
    started_ms: int
    ended_ms: int
    opensearch: str
    shards: int
    failed: int
    generations: Mapping[str, str]
    system_indexes: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Tell whether the snapshot contains every shard."""
        return self.state == SUCCESS and not self.failed

    @property
    def started_at(self) -> str:
        """Start of the snapshot as ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.started_ms / 1000, UTC).isoformat(timespec="seconds")

    def as_json(self) -> dict[str, Any]:
        """Return the backup as the CLI shows it."""
        return {
            "name": self.name, "state": self.state, "began_at": self.started_at,
            "seconds": round(max(0, self.ended_ms - self.started_ms) / 1000, 1), "opensearch": self.opensearch,
            "shards": self.shards, "failed_shards": self.failed, "indexes": sorted(self.generations),
        }  # fmt: skip


def new_backup_name(names: IndexNames, now: datetime) -> str:
    """Return a name for a backup: the prefix and the UTC time to the second."""
    return f"{names.prefix}-{now:%Y%m%dt%H%M%Sz}"


def read_backups(answer: Mapping[str, Any], names: IndexNames | None = None) -> list[Backup]:
    """Read the backups of this project from an answer to `get_snapshots_call`, oldest first.

    With `names`, only those of this installation.
    """
    backups = []
    for snapshot in answer["snapshots"]:
        metadata = (snapshot.get("metadata") or {}).get("sparsewell")
        prefix = metadata.get("prefix") if isinstance(metadata, dict) else None
        if not isinstance(prefix, str) or (names is not None and prefix != names.prefix):
            continue
        generations, system_indexes = {}, []
        for physical in snapshot["indices"]:
            match = _GENERATION.fullmatch(physical.removeprefix(prefix))
            if match:
                generations[match["index"]] = physical
            else:
                system_indexes.append(physical)
        shards = snapshot.get("shards", {})
        backups.append(
            Backup(
                snapshot["snapshot"],
                snapshot["state"],
                prefix,
                snapshot["start_time_in_millis"],
                snapshot.get("end_time_in_millis") or 0,
                snapshot.get("version", ""),
                shards.get("total", 0),
                shards.get("failed", 0),
                generations,
                tuple(sorted(system_indexes)),
            )
        )
    return sorted(backups, key=lambda backup: (backup.started_ms, backup.name))


def get_snapshots_call(repository: str, name: str = "_all") -> Call:
    """Ask for one snapshot, or for all. Unreadable snapshots are omitted."""
    return Call(
        "GET", _snapshot_path(repository, name), params={"ignore_unavailable": "true"}, timeout=SNAPSHOT_TIMEOUT_SECONDS
    )


def list_snapshot_names_call(repository: str) -> Call:
    """Ask for the names of all snapshots, unreadable ones included."""
    return Call(
        "GET", _snapshot_path(repository, "_all"), params={"verbose": "false"}, timeout=SNAPSHOT_TIMEOUT_SECONDS
    )


def create_snapshot_call(
    repository: str, name: str, names: IndexNames, physical: Collection[str], version: str
) -> Call:
    """Begin a snapshot. `get_snapshots_call` reports its progress."""
    body = {
        "indices": ",".join(physical),
        "include_global_state": False,
        "partial": False,
        "metadata": {"sparsewell": {"prefix": names.prefix, "version": version}},
    }
    return Call("PUT", _snapshot_path(repository, name), orjson.dumps(body), {"wait_for_completion": "false"})


def snapshot_status_call(repository: str, name: str) -> Call:
    """Read the repository's record of each shard. Fails if a part of it is missing."""
    params = {"filter_path": "snapshots.state"}
    return Call("GET", f"{_snapshot_path(repository, name)}/_status", params=params, timeout=SNAPSHOT_TIMEOUT_SECONDS)


def delete_snapshot_call(repository: str, name: str) -> Call:
    """Delete a snapshot and the files that no other snapshot needs."""
    return Call("DELETE", _snapshot_path(repository, name), timeout=SNAPSHOT_TIMEOUT_SECONDS)


def get_repository_call(repository: str) -> Call:
    """Ask for a repository. Fails with NotFound if it is not registered."""
    return Call("GET", _snapshot_path(repository))


def register_repository_call(repository: str, location: str) -> Call:
    """Register a directory that all nodes share. OpenSearch verifies it on every node."""
    body = {"type": "fs", "settings": {"location": location, "compress": True}}
    return Call("PUT", _snapshot_path(repository), orjson.dumps(body))


def verify_repository_call(repository: str) -> Call:
    """Verify a repository: every node writes to it and reads the other nodes' files."""
    return Call("POST", f"{_snapshot_path(repository)}/_verify", timeout=SNAPSHOT_TIMEOUT_SECONDS)


def restore_index_call(repository: str, name: str, physical: str, target: str) -> Call:
    """Begin to restore one index under the name `target`, without an alias, so that it is not searched yet.

    Index blocks are not restored: at the time of the snapshot a swap was under way, or the disk was full.
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
    """Ask for the number of active primary shards of an index. The colour does not tell: a new index is yellow."""
    return Call("GET", f"/_cluster/health/{physical}", params={"level": "indices"})


def publish_restored_call(
    restored: Sequence[Generation], replaced: Sequence[Generation], own: Mapping[str, str]
) -> Call:
    """Move the aliases to all restored generations in one step, and away from the generations that they replace.

    `own`: the alias of each restored system index, by its physical name.
    """
    actions: list[dict[str, Any]] = []
    for generation in replaced:
        actions += [
            _alias_action("remove", generation.physical, alias, must_exist=False)
            for alias in (generation.alias, generation.write_alias)
        ]
    for generation in restored:
        actions += [
            _alias_action("add", generation.physical, alias) for alias in (generation.alias, generation.write_alias)
        ]
    actions += [_alias_action("add", physical, alias) for physical, alias in own.items()]
    return Call("POST", "/_aliases", orjson.dumps({"actions": actions}))


def forget_outcomes_call(jobs: str, since: int) -> Call:
    """Make requests with an Idempotency-Key since `since` (milliseconds since 1970) execute again.

    A job may report documents as stored that are not in the earlier snapshot of their index. Executed again under the
    same job and with the same versions, the request stores the missing documents and nothing else.
    """
    body = {
        "query": {"range": {"created_at": {"gte": since}}},
        "script": {"source": "if (ctx._source.remove('outcome') == null) { ctx.op = 'noop' }"},
    }
    return Call("POST", f"/{jobs}/_update_by_query", orjson.dumps(body), _BY_QUERY_OPTIONS, SNAPSHOT_TIMEOUT_SECONDS)


def forget_jobs_call(jobs: str, indexes: Collection[str], since: int) -> Call:
    """Remove the jobs and keys of these indexes since `since`: their documents no longer exist."""
    recent = {"range": {"created_at": {"gte": since}}}
    body = {"query": {"bool": {"filter": [{"terms": {"index": sorted(indexes)}}, recent]}}}
    return Call("POST", f"/{jobs}/_delete_by_query", orjson.dumps(body), _BY_QUERY_OPTIONS, SNAPSHOT_TIMEOUT_SECONDS)


def _alias_action(action: str, index: str, alias: str, **options: bool) -> dict[str, Any]:
    return {action: {"index": index, "alias": alias, **options}}


def _snapshot_path(repository: str, name: str = "") -> str:
    return "/_snapshot/" + "/".join(quote(part, safe="") for part in (repository, name) if part)
