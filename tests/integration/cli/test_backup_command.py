"""`sparsewell backup` and `restore`, on a node that loses its data."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from typer.testing import CliRunner

from cli.main import app
from infra.local_servers import LocalSettings
from infra.opensearch.cluster import temporary_config
from infra.opensearch.node import Node, NodeConfig, start_node
from infra.ports import find_free_port
from infra.processes import ChildProcess
from infra.stack import settings_environment
from services.directories import child_account, make_directory
from services.errors import BackendUnavailable, ConfigurationError, Conflict, InvalidInput, NotFound, SparsewellError
from services.index_spec import Generation
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import record_generation_call
from services.opensearch.snapshots import Backup, read_backups
from services.settings import Settings

Eventually = Callable[[Callable[[], object], float, str], None]
Run = Callable[..., str]
WORDS = ("medicine", "carpentry", "sailing", "astronomy", "gardening", "cooking")
# Versions far below the clock's, so that a write without a version is always newer.
DOCUMENTS = [
    {"id": f"d{at}", "title": WORDS[at % 6], "text": f"A book about {WORDS[at % 6]}, part {at}.", "version": 10}
    for at in range(60)
]


@dataclass
class Losable:
    """A node with a repository beside its data directory."""

    config: NodeConfig
    repositories: Path
    node: Node

    def lose_its_data(self) -> None:
        """Stop the node, remove its data directory and start it again without data."""
        self.node.stop()
        shutil.rmtree(self.config.root / "data")
        self.node = start_node(self.config)


@pytest.fixture(scope="module")
def losable(local_settings: LocalSettings) -> Iterator[Losable]:
    with temporary_config(local_settings) as base:
        repositories = make_directory(base.root.parent / "repositories", child_account(local_settings.run_as))
        config = replace(
            base, http_port=find_free_port(), heap="512m", extra_settings={"path.repo": [str(repositories)]}
        )
        one = Losable(config, repositories, start_node(config))
        try:
            yield one
        finally:
            one.node.stop()


@pytest.fixture(scope="module")
def opensearch_url(losable: Losable) -> str:
    """Start a separate node, because other tests need the run's node."""
    return losable.node.url


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings with short leases, so that pending documents are soon overdue."""
    return settings.model_copy(update={"lease_seconds": 2.0})


@pytest.fixture
def run(settings: Settings, losable: Losable, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a `sparsewell` command with the settings of this test. The exceptions of the command propagate."""
    given = {
        "backup_location": str(losable.repositories / settings.index_prefix),
        "backup_repository": settings.index_prefix,
    }
    for name, value in settings_environment(settings.model_copy(update=given)).items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, list(words), catch_exceptions=False)
        if isinstance(result.exception, SparsewellError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def fill(api: httpx.Client, eventually: Eventually, index: str = "books") -> None:
    """Create an index with documents that a worker has encoded (one of them deleted), rules and a learned query."""
    assert api.put(f"/v1/indexes/{index}", json={"document_top_k": 64}).status_code == 201
    assert api.post(f"/v1/indexes/{index}/documents", json=DOCUMENTS).json()["accepted"] == [
        one["id"] for one in DOCUMENTS
    ]
    assert api.delete(f"/v1/indexes/{index}/documents/d7", params={"version": 20}).status_code == 204
    rules = {"rules": {"synonyms": [{"words": ["boat", "sailing"]}]}}
    assert api.put(f"/v1/indexes/{index}/curation", json=rules).status_code == 200
    eventually(lambda: states(api, index)["encoded"] == 59, 60, "all are encoded")


def states(api: httpx.Client, index: str = "books") -> dict[str, int]:
    found: dict[str, int] = api.get(f"/v1/indexes/{index}").json()["documents"]
    return found


def answers(api: httpx.Client, index: str = "books") -> Any:
    """Return the hits: sparse with scores, lexical without, as BM25 counts deleted documents until a merge."""
    found = []
    for word in WORDS:
        for mode in ("sparse", "lexical"):
            answer = api.post(f"/v1/indexes/{index}/search", json={"query": word, "mode": mode, "size": 20})
            hits = [(hit["id"], hit["score"]) for hit in answer.raise_for_status().json()["hits"]]
            found.append(sorted(hits) if mode == "sparse" else sorted(name for name, _ in hits))
    return found


def indexes(losable: Losable, settings: Settings, part: str = "") -> list[str]:
    """Return OpenSearch's names of this test's indexes."""
    rows = httpx.get(
        f"{losable.node.url}/_cat/indices/{settings.index_prefix}*?h=index", timeout=30, trust_env=False
    ).text.split()
    return sorted(row for row in rows if part in row)


def lose_indexes(losable: Losable, settings: Settings) -> None:
    """Delete all indexes of sparsewell, which is faster than a loss of the node's data."""
    for index in indexes(losable, settings):
        httpx.delete(f"{losable.node.url}/{index}", timeout=30, trust_env=False).raise_for_status()


def rules(api: httpx.Client, index: str) -> list[list[str]]:
    """Return the words of the rules of an index."""
    found = api.get(f"/v1/indexes/{index}/curation").raise_for_status().json()["rules"]
    return [one["words"] for one in found.get("synonyms", [])]


def learned(api: httpx.Client, index: str) -> dict[str, int]:
    """Return the learned queries of an index."""
    found = api.get(f"/v1/indexes/{index}/queries").raise_for_status().json()["queries"]
    return {one["query"]: one["times"] for one in found}


def set_rules(api: httpx.Client, index: str, *words: str) -> None:
    body = {"rules": {"synonyms": [{"words": list(words)}]} if words else {}}
    api.put(f"/v1/indexes/{index}/curation", json=body, headers={"if-match": "*"}).raise_for_status()


def learn(api: httpx.Client, index: str, query: str, times: int) -> None:
    body = {"queries": [{"query": query, "times": times}]}
    api.post(f"/v1/indexes/{index}/queries", json=body).raise_for_status()


def write(api: httpx.Client, document: dict[str, Any], index: str = "books") -> str:
    """Write a document. Return `stored` or the code of the refusal."""
    answer = api.post(f"/v1/indexes/{index}/documents", json=[document]).json()
    return "stored" if answer.get("accepted") else str(answer["rejected"][0]["code"])


def test_what_a_node_lost_comes_back_as_it_was(
    api: httpx.Client, worker: ChildProcess, run: Run, losable: Losable, settings: Settings, eventually: Eventually
) -> None:
    fill(api, eventually)
    key = {"idempotency-key": "import-1"}
    keyed = api.post("/v1/indexes/books/documents", json=[{"id": "k", "text": "by key"}], headers=key).json()
    eventually(lambda: states(api)["encoded"] == 60, 60, "all are encoded")
    before, counted = answers(api), states(api)
    name = run("backup", "create").strip()
    (listed,) = json.loads(run("backup", "list", "--json"))
    assert (listed["name"], listed["state"], listed["indexes"]) == (name, "SUCCESS", ["books"])
    assert "60 encoded, 1 deleted" in run("backup", "verify", "--restore")

    losable.lose_its_data()
    eventually(lambda: api.get("/v1/indexes").json().get("indexes") == [], 60, "the API sees the empty node")
    assert api.post("/v1/indexes/books/search", json={"query": "sailing"}).status_code == 404, "the control"

    assert run("restore") == "books: 60 encoded, 1 deleted\n"
    eventually(lambda: api.get("/v1/indexes/books").status_code == 200, 60, "the API sees the index")
    assert states(api) == counted
    assert answers(api) == before, "every document, by meaning with its score to the bit"
    for document in DOCUMENTS:
        there = api.get(f"/v1/indexes/books/documents/{document['id']}")
        assert there.status_code == (404 if document["id"] == "d7" else 200)
    assert api.get("/v1/indexes/books/curation").json()["rules"]["synonyms"][0]["words"] == ["boat", "sailing"]
    assert api.get(f"/v1/jobs/{keyed['job']['id']}").json()["accepted"] == 1

    # Versions stay in force: an older write loses, also to a delete, and a newer write wins.
    assert write(api, DOCUMENTS[7] | {"version": 15}) == "stale_version", "a delete stays one"
    assert write(api, DOCUMENTS[0] | {"version": 9}) == "stale_version"
    assert write(api, {"id": "d1", "text": "A book about volcanoes.", "version": 11}) == "stored"
    assert write(api, {"id": "d2", "text": "Another about volcanoes."}) == "stored"
    # A used key stays used: the same job results, and nothing is written twice.
    again = api.post("/v1/indexes/books/documents", json=[{"id": "k", "text": "by key"}], headers=key).json()
    assert again["job"]["id"] == keyed["job"]["id"]
    other = api.post("/v1/indexes/books/documents", json=[{"id": "k", "text": "another"}], headers=key)
    assert other.json()["code"] == "idempotency_key_reused"
    volcanoes = {"query": "volcanoes", "mode": "sparse"}

    def found() -> set[str]:
        return {hit["id"] for hit in api.post("/v1/indexes/books/search", json=volcanoes).json()["hits"]}

    eventually(lambda: found() == {"d1", "d2"}, 60, "the worker has encoded what is new")


def test_what_exists_is_replaced_only_by_name(
    api: httpx.Client, worker: ChildProcess, run: Run, eventually: Eventually, losable: Losable, settings: Settings
) -> None:
    fill(api, eventually)
    learn(api, "books", "sea stories", 5)
    before = answers(api)
    run("backup", "create")
    learn(api, "books", "sea stories", 5)
    learn(api, "books", "since then", 5)
    write(api, {"id": "new", "text": "A book about sailing that came later."})
    write(api, DOCUMENTS[3] | {"text": "Rewritten.", "version": 30})
    api.delete("/v1/indexes/books/documents/d5")
    set_rules(api, "books")
    # an index created after the backup is not in it
    api.put("/v1/indexes/films").raise_for_status()
    set_rules(api, "films", "film", "movie")
    learn(api, "films", "westerns", 7)
    keyed = {"json": [{"id": "late", "text": "x"}], "headers": {"idempotency-key": "l"}}
    late = api.post("/v1/indexes/books/documents", **keyed)
    eventually(lambda: states(api)["encoded"] == 60, 60, "all are encoded")
    changed = answers(api)

    with pytest.raises(Conflict, match="restore_exists"):
        run("restore")
    assert answers(api) == changed, "untouched"

    # beside the original, under another name
    assert run("restore", "--index", "books", "--as", "earlier") == "earlier: 59 encoded, 1 deleted\n"
    assert answers(api, "earlier") == before
    assert (rules(api, "earlier"), rules(api, "books")) == ([["boat", "sailing"]], []), "with its rules of then"
    assert learned(api, "earlier") == {"sea stories": 5}
    assert learned(api, "books") == {"sea stories": 10, "since then": 5}
    assert write(api, {"id": "only-here", "text": "x"}, "earlier") == "stored"
    assert api.get("/v1/indexes/books/documents/only-here").status_code == 404

    # in place of the original
    run("restore", "--replace")
    assert answers(api) == before
    assert (rules(api, "books"), learned(api, "books")) == ([["boat", "sailing"]], {"sea stories": 5})
    versions = api.get("/v1/indexes/books/curation/versions").json()["versions"]
    assert [one["version"] for one in versions] == [3, 2, 1], "the rules that were replaced can be looked up"
    assert (rules(api, "films"), learned(api, "films")) == ([["film", "movie"]], {"westerns": 7}), "not in the backup"
    assert indexes(losable, settings, "-books.") == [f"{settings.index_prefix}-books.g000002"], "the old one is gone"
    assert indexes(losable, settings, ".aside") == []
    # the restore forgets an idempotency key whose documents no longer exist
    again = api.post(
        "/v1/indexes/books/documents", json=[{"id": "late", "text": "x"}], headers={"idempotency-key": "l"}
    )
    assert again.json()["job"]["id"] != late.json()["job"]["id"]
    eventually(lambda: states(api)["encoded"] == 60, 60, "it is encoded")
    assert api.get("/v1/indexes/books/documents/late").status_code == 200

    # a single index by name, with its rules and queries, when no index is left
    lose_indexes(losable, settings)
    eventually(lambda: api.get("/v1/indexes").json().get("indexes") == [], 60, "the API sees that it is gone")
    run("restore", json.loads(run("backup", "list", "--json"))[0]["name"], "--index", "books")
    eventually(lambda: api.get("/v1/indexes/books").status_code == 200, 60, "the API sees the index")
    assert answers(api) == before
    assert (rules(api, "books"), learned(api, "books")) == ([["boat", "sailing"]], {"sea stories": 5})


def test_the_newest_are_kept_and_a_damaged_one_is_found_out(
    api: httpx.Client, run: Run, losable: Losable, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put("/v1/indexes/notes")
    api.post("/v1/indexes/notes/documents", json=DOCUMENTS[:5])
    names = iter(f"{settings.index_prefix}-{n}" for n in range(4))
    monkeypatch.setattr("cli.backup.system_indexes.STUCK_SHARD_SECONDS", 1.0)
    monkeypatch.setattr("cli.backup.repository.new_backup_name", lambda *_: next(names))
    for _ in range(3):
        run("backup", "create", "--keep", "2")
    assert [one["name"][-1] for one in json.loads(run("backup", "list", "--json"))] == ["1", "2"]
    run("backup", "delete", f"{settings.index_prefix}-1")
    assert len(run("backup", "list").splitlines()) == 1
    assert "notes: 5 pending" in run("backup", "verify", "latest", "--restore"), "the control"

    repository = losable.repositories / settings.index_prefix
    for file in repository.rglob("__*"):
        file.unlink()
    run("backup", "verify")  # (it reads the repository's metadata and no document)
    with pytest.raises(BackendUnavailable, match="restore_failed"):
        run("backup", "verify", "--restore")
    with pytest.raises(BackendUnavailable, match="restore_failed"):
        run("restore", "--replace")
    assert states(api, "notes")["pending"] == 5, "what was to be replaced is untouched"
    assert indexes(losable, settings, "-notes.") == [f"{settings.index_prefix}-notes.g000001"]
    for file in repository.rglob("indices/*/0/snap-*"):
        file.unlink()
    with pytest.raises(BackendUnavailable, match="backup_damaged"):
        run("backup", "verify")
    for file in repository.glob("snap-*"):
        file.unlink()
    with pytest.raises(BackendUnavailable, match="backup_damaged"):
        run("restore", "--replace")  # it must not silently restore the previous backup


def test_what_verifies_can_be_restored_our_own_indexes_too(
    api: httpx.Client, run: Run, losable: Losable, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.backup.system_indexes.STUCK_SHARD_SECONDS", 1.0)
    api.put("/v1/indexes/notes")
    api.post("/v1/indexes/notes/documents", json=DOCUMENTS[:5])
    set_rules(api, "notes", "note", "memo")
    run("backup", "create")
    assert "notes: 5 pending" in run("backup", "verify", "--restore"), "the control"
    repository = losable.repositories / settings.index_prefix
    known = json.loads(max(repository.glob("index-*")).read_text())["indices"]
    for file in repository.glob(f"**/{known[f'{settings.index_prefix}_curation.1']['id']}/**/__*"):
        file.unlink()
    for words in (
        ["backup", "verify", "--restore"],
        ["restore", "--replace"],
        ["restore", "--index", "notes", "--as", "x"],
    ):
        with pytest.raises(BackendUnavailable, match="restore_failed"):
            run(*words)
    run("restore", "--replace", "--documents-only")
    assert states(api, "notes")["pending"] == 5
    assert rules(api, "notes") == [["note", "memo"]], "those that are there"


def test_a_backup_that_lacks_a_shard_is_none(
    api: httpx.Client, run: Run, losable: Losable, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(f"{settings.index_prefix}-{n}" for n in range(2))
    monkeypatch.setattr("cli.backup.repository.new_backup_name", lambda *_: next(names))
    api.put("/v1/indexes/notes")
    whole = run("backup", "create").strip()
    (index,) = indexes(losable, settings, "-notes.")
    with httpx.Client(base_url=losable.node.url, timeout=30, trust_env=False) as client:
        alias, lost = f"{settings.index_prefix}-lost", f"{settings.index_prefix}-lost.g000001"
        meta = client.get(f"/{index}/_mapping").json()[index]["mappings"]["_meta"]["sparsewell"]
        body = {
            "settings": {"index.routing.allocation.require._name": "nobody"},
            "mappings": {"_meta": {"sparsewell": meta | {"index": "lost", "physical": lost}}},
            "aliases": {alias: {}},
        }
        client.put(f"/{lost}?wait_for_active_shards=0", json=body).raise_for_status()
    with pytest.raises(BackendUnavailable, match="backup_failed"):
        run("backup", "create")
    (listed,) = json.loads(run("backup", "list", "--json"))
    assert (listed["name"], listed["state"]) == (whole, "SUCCESS")

    # a backup that lost a shard on the way
    def partly(*given: Any) -> list[Backup]:
        return [replace(one, state="PARTIAL", failed=1) for one in read_backups(*given)]

    monkeypatch.setattr("cli.backup.repository.read_backups", partly)
    for words in (["restore", whole], ["backup", "verify", whole]):
        with pytest.raises(BackendUnavailable, match="backup_incomplete"):
            run(*words)
    with pytest.raises(NotFound, match="backup_not_found"):
        run("restore")


def test_what_was_pending_on_a_full_disk_is_encoded_after_the_restore(
    api: httpx.Client, run: Run, losable: Losable, settings: Settings, eventually: Eventually,
    start_service_process: Callable[[str], ChildProcess],
) -> None:  # fmt: skip
    api.put("/v1/indexes/notes")
    assert api.post("/v1/indexes/notes/documents", json=DOCUMENTS[:5]).is_success
    (index,) = indexes(losable, settings, "-notes.")
    with httpx.Client(base_url=losable.node.url, timeout=30, trust_env=False) as client:
        blocked = {"index.blocks.read_only_allow_delete": True}  # as OpenSearch sets it on a full disk
        client.put(f"/{index}/_settings", json=blocked).raise_for_status()
        run("backup", "create")
    lose_indexes(losable, settings)
    with closing(redis.Redis.from_url(settings.redis_url)) as queues:
        queues.flushdb()
    assert run("restore") == "notes: 5 pending\n"
    for part in ("worker", "sweeper"):
        start_service_process(part)
    eventually(lambda: states(api, "notes")["encoded"] == 5, 60, "the sweeper has them encoded")
    assert write(api, {"id": "more", "text": "x"}, "notes") == "stored"


def test_a_restore_that_is_killed_is_begun_again(
    api: httpx.Client, run: Run, losable: Losable, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.backup.restore.ALIAS_CACHE_SECONDS", 0.0)
    prefix = settings.index_prefix
    api.put("/v1/indexes/notes")
    api.post("/v1/indexes/notes/documents", json=DOCUMENTS[:5])
    set_rules(api, "notes", "note", "memo")
    with httpx.Client(base_url=losable.node.url, timeout=30, trust_env=False) as client:
        client.put(f"/{prefix}_keys.1/_doc/some", json={"id": "some"}).raise_for_status()
        named = {"add": {"index": f"{prefix}_keys.1", "alias": f"{prefix}_keys"}}
        client.post("/_aliases", json={"actions": [named]}).raise_for_status()
        run("backup", "create")
        lose_indexes(losable, settings)

        with monkeypatch.context() as patch:
            patch.setattr("cli.backup.restore.discard_indexes", lambda *_: None)  # leave the state that SIGKILL leaves
            patch.setattr("cli.backup.restore.publish_restored_call", interrupted)
            with pytest.raises(Killed):
                run("restore")
        assert len(indexes(losable, settings)) == 4, "of each there is something, and nobody sees it"
        with pytest.raises(Conflict, match="interrupted restore"):
            run("restore")
        assert run("restore", "--replace") == "notes: 5 pending\n"
        assert client.get(f"/{prefix}_keys/_doc/some").is_success, "keys have their name"
    assert indexes(losable, settings) == [
        f"{prefix}-notes.g000002", f"{prefix}_curation.2", f"{prefix}_jobs", f"{prefix}_keys.2",
    ]  # fmt: skip

    # a restore that fails in another way leaves nothing
    with monkeypatch.context() as patch:
        patch.setattr("cli.backup.restore.publish_restored_call", interrupted)
        with pytest.raises(Killed):
            run("restore", "--index", "notes", "--as", "other")
    assert indexes(losable, settings, "other") == []


class Killed(BaseException):
    """The end of a process by Ctrl-C or a signal, which is not an error of the product."""


def interrupted(*_: object) -> None:
    raise Killed


def test_an_answer_that_is_lost_undoes_nothing(
    api: httpx.Client, run: Run, losable: Losable, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put("/v1/indexes/notes")
    api.post("/v1/indexes/notes/documents", json=DOCUMENTS[:5])
    run("backup", "create")
    lose_indexes(losable, settings)
    send, arrives = SyncSearchClient.send, False

    def lossy(client: SyncSearchClient, call: Call) -> Any:
        if call.path != "/_aliases":
            return send(client, call)
        if arrives:
            send(client, call)
        raise BackendUnavailable("opensearch_timeout", "OpenSearch did not answer in time.")

    monkeypatch.setattr(SyncSearchClient, "send", lossy)
    with pytest.raises(BackendUnavailable, match="opensearch_timeout"):
        run("restore")
    assert indexes(losable, settings) == [], "the request did not arrive"
    arrives = True
    assert run("restore") == "notes: 5 pending\n"


def test_one_installation_s_backup_is_restored_by_another(
    api: httpx.Client, run: Run, losable: Losable, settings: Settings, monkeypatch: pytest.MonkeyPatch,
    live_api: Callable[[Settings], AbstractContextManager[str]], eventually: Eventually,
) -> None:  # fmt: skip
    api.put("/v1/indexes/notes")
    api.post("/v1/indexes/notes/documents", json=DOCUMENTS[:5])
    set_rules(api, "notes", "note", "memo")
    name = run("backup", "create").strip()
    other = settings.model_copy(update={"index_prefix": f"{settings.index_prefix}b", "api_port": find_free_port()})
    monkeypatch.setenv("SPARSEWELL_INDEX_PREFIX", other.index_prefix)
    assert run("backup", "list") == "", "it is none of its own"
    with pytest.raises(NotFound, match="backup_not_found"):
        run("restore")
    made = ["-notes.g000001", "_curation.1", "_jobs"]
    with live_api(other) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        # during the restore, while the copied index still belongs to the other installation
        during: list[tuple[int, int, Any]] = []

        def look(generation: Generation, target: str) -> Call:
            assert indexes(losable, other) == [f"{other.index_prefix}{made[0]}"]
            listed, ready = client.get("/v1/indexes"), client.get("/readyz")
            during.append((listed.status_code, ready.status_code, listed.json().get("indexes")))
            return record_generation_call(generation, target)

        monkeypatch.setattr("cli.backup.restore.record_generation_call", look)
        assert run("restore", name) == "notes: 5 pending\n"
        assert during == [(200, 200, [])]
        assert indexes(losable, other) == [f"{other.index_prefix}{one}" for one in made]
        eventually(lambda: client.get("/v1/indexes/notes").status_code == 200, 60, "the API sees the index")
        assert rules(client, "notes") == [["note", "memo"]]
        assert write(client, {"id": "more", "text": "x"}, "notes") == "stored"
    assert states(api, "notes")["pending"] == 5


def test_what_cannot_be_done_says_why(
    api: httpx.Client, run: Run, monkeypatch: pytest.MonkeyPatch, settings: Settings, losable: Losable
) -> None:
    def refused(kind: type[SparsewellError], code: str, *words: str) -> None:
        with pytest.raises(kind) as caught:
            run(*words)
        assert caught.value.code == code

    refused(NotFound, "nothing_to_back_up", "backup", "create")
    api.put("/v1/indexes/notes")
    assert run("backup", "list") == ""
    refused(NotFound, "backup_not_found", "restore")
    refused(NotFound, "backup_not_found", "restore", "yesterday's")
    refused(NotFound, "backup_not_found", "backup", "verify")
    refused(NotFound, "backup_not_found", "backup", "delete", "x")
    run("backup", "create")
    for name in ("*", "_all", f"{settings.index_prefix}*", "..", "", "a,b", "-x", "a/../b", "_current"):
        refused(NotFound, "backup_not_found", "backup", "delete", "--", name)
        refused(NotFound, "backup_not_found", "restore", "--", name)
    assert len(run("backup", "list").splitlines()) == 1, "a pattern is no name"
    refused(NotFound, "index_not_in_backup", "restore", "--index", "films")
    refused(InvalidInput, "one_index_by_another_name", "restore", "--as", "films")
    refused(InvalidInput, "invalid_index_name", "restore", "--index", "notes", "--as", "a/b")
    monkeypatch.setenv("SPARSEWELL_BACKUP_LOCATION", str(losable.repositories / "elsewhere"))
    # the registered repository still has the old location
    refused(ConfigurationError, "backup_location_refused", "backup", "create")
    monkeypatch.setenv("SPARSEWELL_BACKUP_REPOSITORY", "other")
    monkeypatch.setenv("SPARSEWELL_BACKUP_LOCATION", "/etc")
    refused(ConfigurationError, "backup_location_refused", "backup", "create")
    monkeypatch.delenv("SPARSEWELL_BACKUP_LOCATION")
    for words in (["backup", "create"], ["backup", "list"], ["restore"]):
        refused(ConfigurationError, "no_backup_repository", *words)
    monkeypatch.setenv("SPARSEWELL_BACKUP_REPOSITORY", "a b")
    refused(ConfigurationError, "bad_setting", "backup", "list")
