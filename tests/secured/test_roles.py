"""Test the shipped roles on 2.19 with TLS: sparsewell works with them, and each component has no other rights."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from cli.main import app
from indexer.retention import RetentionCleanup
from indexer.sweeper import MappingUpgrade, Sweeper
from infra import processes
from infra.ports import find_free_port
from infra.stack import ServiceProcess, service_processes, settings_environment, wait_until_ready
from services.errors import BackendUnavailable
from services.opensearch.bulk import Write, WriteOutcome, write_bulk
from services.opensearch.client import Call, SyncSearchClient
from services.queue.messages import Publisher
from services.settings import Settings
from tests.secured.secured_parts import Secured

Eventually = Callable[[Callable[[], object], float, str], None]
DOCUMENTS = [
    {"id": "a", "title": "Medicine", "text": "A physician prescribes drugs.", "metadata": {"year": 1999}},
    {"id": "b", "title": "Carpentry", "text": "A carpenter repairs old chairs.", "metadata": {"year": 2001}},
    {"id": "c", "title": "Sailing", "text": "The captain of a whaling ship.", "metadata": {"year": 1851}},
]


@pytest.fixture
def chosen(redis_url: str) -> dict[str, Any]:
    """Return the settings that all components of the test share."""
    return {"redis_url": redis_url, "api_port": find_free_port(), "worker_concurrency": 1, "learn_queries": "*"}


@pytest.fixture
def api(
    secured_node: Secured, chosen: dict[str, Any], live_api: Callable[[Settings], AbstractContextManager[str]]
) -> Iterator[httpx.Client]:
    """Run an API with its own user. The fixture deletes its indexes at the end."""
    with (
        live_api(secured_node.settings("api", **chosen)) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=30, verify=False) as client,  # noqa: S501 - plain HTTP
    ):
        yield client
    lose_indexes(secured_node)


def lose_indexes(secured_node: Secured) -> None:
    for row in secured_node.admin.get("/_cat/indices", params={"format": "json"}).json():
        if row["index"].startswith("sparsewell"):
            secured_node.admin.delete(f"/{row['index']}").raise_for_status()


@pytest.fixture
def worker(secured_node: Secured, chosen: dict[str, Any], tmp_path: Path) -> Iterator[Settings]:
    """Start a worker that authenticates with a certificate instead of a password."""
    cert, key = secured_node.authority.sign("sparsewell-worker")
    without = {"opensearch_user": None, "opensearch_password": None}
    settings = secured_node.settings("worker", **chosen, **without, opensearch_cert=cert, opensearch_key=key)
    service: ServiceProcess = next(service for service in service_processes(settings) if service.name == "worker")
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **settings_environment(settings),
    }
    child = processes.start_child(
        "worker", service.command, tmp_path / "worker.log", environment=environment, directory=tmp_path, tied=True
    )
    try:
        wait_until_ready(service, child, 60)
        yield settings
    finally:
        processes.stop_child(child, 0)
        assert "forbidden" not in Path(child.log).read_text()


def send(api: httpx.Client, method: str, path: str, **given: Any) -> Any:
    answer = api.request(method, f"/v1{path}", **given)
    assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else answer.text


def test_everything_that_sparsewell_does_is_within_its_roles(
    secured_node: Secured, api: httpx.Client, worker: Settings, chosen: dict[str, Any], eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Use every operation once: documents, searches, rules, queries, exports, expiry and a reindexing."""
    assert api.get("/readyz").status_code == 200
    send(api, "PUT", "/indexes/books", json={"fields": {"year": "number"}})
    job = send(api, "POST", "/indexes/books/documents", json=DOCUMENTS, headers={"idempotency-key": "one"})["job"]["id"]
    eventually(lambda: send(api, "GET", f"/jobs/{job}")["finished"], 60, "the worker has encoded them")
    assert send(api, "GET", "/indexes/books")["documents"]["encoded"] == 3

    for mode in ("sparse", "lexical", "hybrid"):
        body = {"query": "which drugs does a physician prescribe", "mode": mode, "explain": True, "highlight": True}
        body |= {"facets": {"year": {"ranges": [{"gte": 1900}]}}} if mode == "hybrid" else {}
        found = send(
            api, "POST", "/indexes/books/search", json=body | {"filter": {"field": "year", "range": {"gte": 1900}}}
        )
        assert found["hits"][0]["id"] == "a"
    page = send(api, "POST", "/indexes/books/search", json={"query": "a physician", "cursor": "*", "size": 1})
    send(api, "POST", "/indexes/books/search", json={"query": "a physician", "cursor": page["cursor"], "size": 1})
    send(api, "POST", "/search", json={"query": "a physician", "indexes": ["books"]})
    send(api, "POST", "/search/batch", json={"searches": [{"index": "books", "query": "ship"}]})
    send(api, "POST", "/indexes/books/search", json={"like": ["c"]})
    send(api, "POST", "/indexes/books/search", json={"query": "physisian", "mode": "lexical"})
    send(api, "GET", "/indexes/books/suggest", params={"q": "med"})
    rules = {"rules": {"synonyms": [{"words": ["doctor", "physician"]}]}}
    send(api, "PUT", "/indexes/books/curation", json=rules)
    send(api, "POST", "/indexes/books/curation/dry-run", json=rules | {"queries": ["doctor"]})
    send(api, "POST", "/indexes/books/queries", json={"queries": [{"query": "old chairs", "times": 5}]})
    send(api, "GET", "/indexes/books/queries")
    send(api, "DELETE", "/indexes/books/queries", params={"all": "true"})
    send(api, "POST", "/indexes/books/queries", json={"queries": [{"query": "old chairs", "times": 5}]})
    send(api, "GET", "/indexes/books/dead-letters")
    assert len(send(api, "GET", "/indexes/books/export").splitlines()) >= 3
    send(api, "GET", "/indexes/books/documents/a")
    send(api, "DELETE", "/indexes/books/documents/b")

    operator = secured_node.settings("operator", **chosen)
    with closing(SyncSearchClient(operator)) as search, closing(Publisher(operator.redis_address)) as publisher:
        search.send(Call("POST", "/sparsewell-books/_refresh"))
        MappingUpgrade(operator, search).add()
        Sweeper(operator, search, publisher).sweep()
        assert (
            RetentionCleanup(operator.model_copy(update={"tombstone_days": 1e-9}), search).remove()["tombstones"] == 1
        )

    backup = {"backup_location": str(secured_node.repositories / "here")}
    for words in (
        ["backup", "create", "--keep", "1"],
        ["backup", "verify", "--restore"],
        ["restore", "--index", "books", "--as", "earlier"],
        ["restore", "--replace"],
        ["lose"],
        ["restore", "--index", "books"],
        ["reindex", "books", "--top-k", "64", "--encode-here", "--api", str(api.base_url)],
        ["generations", "show", "books"],
        ["generations", "rollback", "books"],
        ["generations", "drop", "books"],
    ):
        if words == ["lose"]:
            lose_indexes(secured_node)
            continue
        role = secured_node.settings("backup", **backup) if words[0] in ("backup", "restore") else operator
        with monkeypatch.context() as patch:
            for name, value in settings_environment(role).items():
                patch.setenv(name, value)
            result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert send(api, "GET", "/indexes/books/curation")["rules"] == rules["rules"]
    assert "old chairs" in [one["query"] for one in send(api, "GET", "/indexes/books/queries")["queries"]]
    assert [hit["id"] for hit in send(api, "POST", "/indexes/books/search", json={"query": "physician"})["hits"]] == [
        "a"
    ]
    send(api, "DELETE", "/indexes/books")


FOREIGN, KEPT, RULES = "payroll", "sparsewell-kept.g000001", "sparsewell_curation.1"
EVERY = ("api", "worker", "operator", "backup")
CLUSTER = b'{"persistent": {"action.auto_create_index": null}}'
TEMPLATE = b'{"index_patterns": ["sparsewell-*"], "priority": 7}'
ALIAS = b'{"actions": [{"add": {"index": "sparsewell-kept.g000001", "alias": "sparsewell-other"}}]}'
# Requests that OpenSearch answers, and the components that must not send them.
REFUSED = [
    (EVERY, Call("GET", f"/{FOREIGN}/_search")),
    (EVERY, Call("PUT", f"/{FOREIGN}/_doc/1", b"{}")),
    (EVERY, Call("GET", "/_search")),
    (EVERY, Call("GET", "/.opendistro_security/_search")),
    (EVERY, Call("PUT", "/_cluster/settings", CLUSTER)),
    (EVERY, Call("GET", "/_plugins/_security/api/internalusers")),
    (EVERY, Call("PUT", "/_index_template/sparsewell-own", TEMPLATE)),
    (EVERY, Call("DELETE", f"/{FOREIGN}")),
    (("api", "worker", "operator"), Call("GET", "/_snapshot")),
    (("api", "worker", "backup"), Call("PUT", f"/{KEPT}/_settings", b'{"index.blocks.write": false}')),
    (("api", "worker"), Call("PUT", f"/{KEPT}/_mapping", b'{"properties": {"x": {"type": "keyword"}}}')),
    (("worker",), Call("PUT", "/sparsewell-new.g000001")),
    (("worker", "backup"), Call("DELETE", f"/{KEPT}/_doc/1")),
    (("backup",), Call("PUT", f"/{KEPT}/_doc/1", b"{}")),
    (("worker",), Call("POST", "/_aliases", ALIAS)),
    (("worker",), Call("GET", "/sparsewell_curation/_search")),
    (("worker",), Call("DELETE", f"/{KEPT}")),
]


@pytest.fixture
def somebodys_indexes(secured_node: Secured) -> Iterator[None]:
    admin = secured_node.admin
    for index in (FOREIGN, KEPT, RULES):
        admin.put(f"/{index}/_doc/1", json={}).raise_for_status()
    added = {"add": {"index": RULES, "alias": "sparsewell_curation"}}
    admin.post("/_aliases", json={"actions": [added]}).raise_for_status()
    yield
    for path in (f"/{FOREIGN}", f"/{KEPT}", f"/{RULES}", "/sparsewell-new.g000001", "/_index_template/sparsewell-own"):
        admin.delete(path)


@pytest.mark.usefixtures("somebodys_indexes")
def test_each_role_is_refused_what_is_not_its_own(
    secured_node: Secured, client_of: Callable[[str], SyncSearchClient]
) -> None:
    clients = {role: client_of(role) for role in EVERY}
    for roles, call in REFUSED:
        for role in roles:
            with pytest.raises(BackendUnavailable) as caught:
                clients[role].send(call)
            assert caught.value.code == "opensearch_forbidden", (role, call)
        # the control: the request is valid, so the roles forbid it
        headers = {"content-type": "application/json"}
        answer = secured_node.admin.request(call.method, call.path, content=call.body, headers=headers)
        assert answer.is_success, (call, answer.text)


@pytest.mark.usefixtures("somebodys_indexes")
def test_a_missing_role_refuses_no_document_for_good(client_of: Callable[[str], SyncSearchClient]) -> None:
    """OpenSearch refuses each item of a bulk request separately, with a status that otherwise means a bad document."""
    verdicts = write_bulk(client_of("worker"), [Write("sparsewell_curation", "1", 5, {})], 1000, 0.5)
    assert [(one.outcome, one.reason) for one in verdicts] == [(WriteOutcome.NOT_STORED, "security_exception")]


def test_who_is_not_known_is_told_so(
    secured_node: Secured, chosen: dict[str, Any], live_api: Callable[[Settings], AbstractContextManager[str]]
) -> None:
    wrong = secured_node.settings("api", **chosen, opensearch_password="wr0ng-s3cret")
    with live_api(wrong) as url:
        for path in ("/readyz", "/v1/indexes", "/v1/indexes/books/search?q=x"):
            answer = httpx.get(url + path, timeout=30, trust_env=False)
            assert (answer.status_code, answer.json()["code"]) == (503, "opensearch_unauthorized")
            assert "s3cret" not in answer.text


def test_a_password_that_is_changed_is_read_from_its_file(secured_node: Secured, tmp_path: Path) -> None:
    file = tmp_path / "password"
    user = {"opensearch_user": "rotating", "opensearch_password": None, "opensearch_password_file": file}
    account = "/_plugins/_security/api/internalusers/rotating"

    def change(password: str) -> None:
        secured_node.admin.put(account, json={"password": password}).raise_for_status()

    change("Aa1!-the-first-of-two-long-ones")
    file.write_text("Aa1!-the-first-of-two-long-ones\n")
    mapping = "/_plugins/_security/api/rolesmapping/sparsewell_api"
    patch = [{"op": "add", "path": "/users/-", "value": "rotating"}]
    secured_node.admin.patch(mapping, json=patch).raise_for_status()
    with closing(SyncSearchClient(secured_node.settings("api", **user))) as client:
        look = Call("GET", "/_cluster/health")
        client.send(look)
        change("Aa1!-another-secret-of-some-length")
        with pytest.raises(BackendUnavailable, match="opensearch_unauthorized"):
            client.send(look)
        file.write_text("Aa1!-another-secret-of-some-length\n")
        client.send(look)
    secured_node.admin.delete(account).raise_for_status()


@pytest.mark.usefixtures("somebodys_indexes")
def test_who_takes_backups_reads_the_cluster_and_writes_over_nobodys_index(
    secured_node: Secured, client_of: Callable[[str], SyncSearchClient]
) -> None:
    """OpenSearch has no permission for snapshots of some indexes only. docs/opensearch-access.md says so."""
    client = client_of("backup")

    def send(method: str, path: str, **body: object) -> Any:
        return client.send(Call(method, path, orjson.dumps(body), {"wait_for_completion": "true"}))

    registered = {"type": "fs", "settings": {"location": str(secured_node.repositories / "any")}}
    client.send(Call("PUT", "/_snapshot/any", orjson.dumps(registered)))
    send("PUT", "/_snapshot/any/all", indices=FOREIGN, include_global_state=False)
    restored = {"indices": FOREIGN, "include_global_state": False, "rename_pattern": ".+"}
    send("POST", "/_snapshot/any/all/_restore", **restored, rename_replacement="sparsewell-new.g000001")
    assert len(client.send(Call("GET", "/sparsewell-new.g000001/_search"))["hits"]["hits"]) == 1
    with pytest.raises(BackendUnavailable, match="opensearch_forbidden"):
        send("POST", "/_snapshot/any/all/_restore", **restored, rename_replacement="another")
    client.send(Call("DELETE", "/_snapshot/any/all"))
    client.send(Call("DELETE", "/_snapshot/any"))
