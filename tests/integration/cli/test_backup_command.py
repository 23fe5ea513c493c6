"""`sparsewell backup` and `restore`, on a node that loses its data."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.main import app
from infra.accounts import child_account
from infra.directories import make_directory
from infra.opensearch.node import Node, NodeConfig, start_node
from infra.opensearch.temporary import temporary_config
from infra.ports import free_port
from infra.processes import Child
from infra.settings import LocalSettings
from infra.stack.parts import settings_environment
from services.errors import BackendUnavailable, ConfigurationError, Conflict, InvalidInput, NotFound, SparsewellError
from services.settings import Settings

Eventually = Callable[[Callable[[], object], float, str], None]
Run = Callable[..., str]
WORDS = ("medicine", "carpentry", "sailing", "astronomy", "gardening", "cooking")
# Versions far below the clock's, so that a write without one is always newer.
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
        """Stops the node, removes its data directory and starts it again, empty."""
        self.node.stop()
        shutil.rmtree(self.config.root / "data")
        self.node = start_node(self.config)


@pytest.fixture(scope="module")
def losable(local_settings: LocalSettings) -> Iterator[Losable]:
    with (
        temporary_config(local_settings) as base,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("OPENSEARCH_JAVA_OPTS", "-XX:TieredStopAtLevel=1")  # it does not live long
        repositories = make_directory(base.root.parent / "repositories", child_account(local_settings.run_as))
        config = replace(base, http_port=free_port(), heap="512m", further={"path.repo": [str(repositories)]})
        one = Losable(config, repositories, start_node(config))
        try:
            yield one
        finally:
            one.node.stop()


@pytest.fixture(scope="module")
def opensearch_url(losable: Losable) -> str:
    """Not the run's node, which others need."""
    return losable.node.url


@pytest.fixture
def run(settings: Settings, losable: Losable, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command of `sparsewell` with the settings of this test; raises what the command raises."""
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
    """An index with documents that a worker has encoded, one of them deleted; rules, and a learned query."""
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
    """What searches find: by meaning with scores, by words without (BM25 counts deleted documents, until a merge)."""
    found = []
    for word in WORDS:
        for mode in ("sparse", "lexical"):
            answer = api.post(f"/v1/indexes/{index}/search", json={"query": word, "mode": mode, "size": 20})
            hits = [(hit["id"], hit["score"]) for hit in answer.raise_for_status().json()["hits"]]
            found.append(sorted(hits) if mode == "sparse" else sorted(name for name, _ in hits))
    return found


def write(api: httpx.Client, document: dict[str, Any], index: str = "books") -> str:
    """`stored`, or the code with which the document was refused."""
    answer = api.post(f"/v1/indexes/{index}/documents", json=[document]).json()
    return "stored" if answer.get("accepted") else str(answer["rejected"][0]["code"])


def test_what_a_node_lost_comes_back_as_it_was(
    api: httpx.Client, worker: Child, run: Run, losable: Losable, settings: Settings, eventually: Eventually
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
    eventually(lambda: api.get("/v1/indexes").json().get("indexes") == [], 30, "the API sees the empty node")
    assert api.post("/v1/indexes/books/search", json={"query": "sailing"}).status_code == 404, "the control"

    assert run("restore") == "books: 60 encoded, 1 deleted\n"
    eventually(lambda: api.get("/v1/indexes/books").status_code == 200, 10, "the API sees the index")
    assert states(api) == counted
    assert answers(api) == before, "every document, by meaning with its score to the bit"
    for document in DOCUMENTS:
        there = api.get(f"/v1/indexes/books/documents/{document['id']}")
        assert there.status_code == (404 if document["id"] == "d7" else 200)
    assert api.get("/v1/indexes/books/curation").json()["rules"]["synonyms"][0]["words"] == ["boat", "sailing"]
    assert api.get(f"/v1/jobs/{keyed['job']['id']}").json()["accepted"] == 1

    # Versions go on: what is older loses, also to a delete; what is newer wins.
    assert write(api, DOCUMENTS[7] | {"version": 15}) == "stale_version", "a delete stays one"
    assert write(api, DOCUMENTS[0] | {"version": 9}) == "stale_version"
    assert write(api, {"id": "d1", "text": "A book about volcanoes.", "version": 11}) == "stored"
    assert write(api, {"id": "d2", "text": "Another about volcanoes."}) == "stored"
    # A key that was used is one still: the same job, and nothing is written twice.
    again = api.post("/v1/indexes/books/documents", json=[{"id": "k", "text": "by key"}], headers=key).json()
    assert again["job"]["id"] == keyed["job"]["id"]
    other = api.post("/v1/indexes/books/documents", json=[{"id": "k", "text": "another"}], headers=key)
    assert other.json()["code"] == "idempotency_key_reused"
    volcanoes = {"query": "volcanoes", "mode": "sparse"}

    def found() -> set[str]:
        return {hit["id"] for hit in api.post("/v1/indexes/books/search", json=volcanoes).json()["hits"]}

    eventually(lambda: found() == {"d1", "d2"}, 60, "the worker has encoded what is new")


def test_what_exists_is_replaced_only_by_name(
    api: httpx.Client, worker: Child, run: Run, eventually: Eventually, losable: Losable, settings: Settings
) -> None:
    fill(api, eventually)
    before = answers(api)
    run("backup", "create")
    write(api, {"id": "new", "text": "A book about sailing that came later."})
    write(api, DOCUMENTS[3] | {"text": "Rewritten.", "version": 30})
    api.delete("/v1/indexes/books/documents/d5")
    api.put("/v1/indexes/books/curation", json={"rules": {}}, headers={"if-match": "*"})
    keyed = {"json": [{"id": "late", "text": "x"}], "headers": {"idempotency-key": "l"}}
    late = api.post("/v1/indexes/books/documents", **keyed)
    eventually(lambda: states(api)["encoded"] == 60, 60, "all are encoded")
    changed = answers(api)

    with pytest.raises(Conflict, match="restore_exists"):
        run("restore")
    assert answers(api) == changed, "untouched"

    # beside it, by another name
    assert run("restore", "--index", "books", "--as", "earlier") == "earlier: 59 encoded, 1 deleted\n"
    assert answers(api, "earlier") == before
    assert api.get("/v1/indexes/earlier/curation").json()["rules"] == {}, "its rules are those of `books`"
    assert write(api, {"id": "only-here", "text": "x"}, "earlier") == "stored"
    assert api.get("/v1/indexes/books/documents/only-here").status_code == 404

    # in its place
    run("restore", "--replace")
    assert answers(api) == before
    assert api.get("/v1/indexes/books/curation").json()["rules"] != {}
    rows = httpx.get(f"{losable.node.url}/_cat/indices/{settings.index_prefix}*?h=index", trust_env=False).text.split()
    generations = sorted(row for row in rows if "-books." in row)
    assert generations == [f"{settings.index_prefix}-books.g000002"], "what was replaced is gone"
    # a key that stands for documents which are not there any more is forgotten
    again = api.post(
        "/v1/indexes/books/documents", json=[{"id": "late", "text": "x"}], headers={"idempotency-key": "l"}
    )
    assert again.json()["job"]["id"] != late.json()["job"]["id"]
    eventually(lambda: states(api)["encoded"] == 60, 60, "it is encoded")
    assert api.get("/v1/indexes/books/documents/late").status_code == 200

    # and another installation's, by its name
    run("restore", json.loads(run("backup", "list", "--json"))[0]["name"], "--index", "books", "--replace")
    assert answers(api) == before


def test_the_newest_are_kept_and_a_damaged_one_is_found_out(
    api: httpx.Client, run: Run, losable: Losable, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put("/v1/indexes/notes")
    api.post("/v1/indexes/notes/documents", json=DOCUMENTS[:5])
    names = iter(f"{settings.index_prefix}-{n}" for n in range(4))
    monkeypatch.setattr("cli.backups.restoring.STUCK_SECONDS", 1.0)
    monkeypatch.setattr("cli.backups.store.new_name", lambda *_: next(names))
    for _ in range(3):
        run("backup", "create", "--keep", "2")
    assert [one["name"][-1] for one in json.loads(run("backup", "list", "--json"))] == ["1", "2"]
    run("backup", "delete", f"{settings.index_prefix}-1")
    assert len(run("backup", "list").splitlines()) == 1
    assert "notes: 5 pending" in run("backup", "verify", "latest", "--restore"), "the control"

    repository = losable.repositories / settings.index_prefix
    for file in repository.rglob("__*"):
        file.unlink()
    run("backup", "verify")  # (it reads what the repository says of itself, and no document)
    with pytest.raises(BackendUnavailable, match="restore_failed"):
        run("backup", "verify", "--restore")
    with pytest.raises(BackendUnavailable, match="restore_failed"):
        run("restore", "--replace")
    assert states(api, "notes")["pending"] == 5, "what was to be replaced is untouched"
    rows = httpx.get(f"{losable.node.url}/_cat/indices/{settings.index_prefix}*?h=index", trust_env=False).text.split()
    assert [row for row in rows if "-notes." in row] == [f"{settings.index_prefix}-notes.g000001"]
    for file in repository.rglob("indices/*/0/snap-*"):
        file.unlink()
    with pytest.raises(BackendUnavailable, match="backup_damaged"):
        run("backup", "verify")


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
    refused(NotFound, "index_not_in_backup", "restore", "--index", "films")
    refused(InvalidInput, "one_index_by_another_name", "restore", "--as", "films")
    refused(InvalidInput, "invalid_index_name", "restore", "--index", "notes", "--as", "a/b")
    monkeypatch.setenv("SPARSEWELL_BACKUP_REPOSITORY", "other")
    monkeypatch.setenv("SPARSEWELL_BACKUP_LOCATION", "/etc")
    refused(ConfigurationError, "backup_location_refused", "backup", "create")
    monkeypatch.delenv("SPARSEWELL_BACKUP_LOCATION")
    for words in (["backup", "create"], ["backup", "list"], ["restore"]):
        refused(ConfigurationError, "no_backup_repository", *words)
    monkeypatch.setenv("SPARSEWELL_BACKUP_REPOSITORY", "a b")
    refused(ConfigurationError, "bad_setting", "backup", "list")
