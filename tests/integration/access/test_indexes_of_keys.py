"""Two keys have indexes of their own. No operation lets one key read or change the other key's indexes."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from query_api.access.gate import OPERATION_SCOPES, PUBLIC_OPERATION
from services.settings import Settings
from tests.integration.access.doors import Sent, ask

Make = Callable[..., str]
As = Callable[[str], httpx.Client]

# `ab` has the same prefix as the other key's indexes, without the dash.
INDEXES = {"a": ("a-one",), "b": ("b-one", "ab")}
PATTERNS = {"a": ["a-*"], "b": ["b-*", "ab"]}
TRICKS = ["a-one,b-one", "b-one,a-one", "b-one.g000001", "a-one.g000001", "*", "a-*", "_all", "b-one%2F", "a-nothing"]
MARK = re.compile(r"mark[ab]\d+x")


def marks(letter: str) -> list[str]:
    return [f"mark{letter}{n}x" for n in range(4)]


MARKS = [*marks("a"), *marks("b")]


def fill(admin: httpx.Client, settings: Settings, letter: str, index: str) -> str:
    """Write documents (one of them dead), rules and frequent queries, each with a mark. Return the id of the job."""
    first, *_, last = marks(letter)
    admin.put(f"/v1/indexes/{index}", json={"fields": {"note": "keyword"}}).raise_for_status()
    documents = [
        {"id": one, "title": f"{one} chair", "text": f"a chair of {one}", "metadata": {"note": one}}
        for one in marks(letter)
    ]
    sent = admin.post(f"/v1/indexes/{index}/documents", json=documents).raise_for_status().json()
    rules = {"results": [{"query": "chair", "pin": [{"id": first, "position": 1}]}]}
    admin.put(f"/v1/indexes/{index}/curation", json={"rules": rules, "note": first}).raise_for_status()
    admin.post(f"/v1/indexes/{index}/queries", json={"queries": [{"query": f"{first} chair"}]}).raise_for_status()
    died = {"state": "dead", "dead_at": 1, "dead_id": last, "error": {"code": "encoding_failed", "reason": last}}
    httpx.post(
        f"{settings.opensearch_url}/{settings.index_prefix}-{index}.g000001/_update/{last}",
        params={"refresh": "true"},
        json={"doc": died},
        timeout=30,
        trust_env=False,
    ).raise_for_status()
    return str(sent["job"]["id"])


def all_that_is_there(admin: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = {"": [one["name"] for one in admin.get("/v1/indexes").json()["indexes"]]}
    for index in (index for names in INDEXES.values() for index in names):
        exported = admin.get(f"/v1/indexes/{index}/export").raise_for_status().text.splitlines()[:-1]
        read = [
            admin.get(f"/v1/indexes/{index}{part}").raise_for_status() for part in ("", "/dead-letters", "/curation")
        ]
        queries = admin.get(f"/v1/indexes/{index}/queries").json()["queries"]
        found[index] = sorted(exported), [one.json() for one in read], [(q["query"], q["times"]) for q in queries]
    return found


@pytest.fixture
def jobs(admin: httpx.Client, settings: Settings) -> Iterator[dict[str, str]]:
    """Return the jobs of all indexes. The fixture asserts at the end that no index has changed."""
    found = {index: fill(admin, settings, letter, index) for letter, names in INDEXES.items() for index in names}
    before = all_that_is_there(admin)
    yield found
    assert all_that_is_there(admin) == before


def doors(own: tuple[str, ...], others: tuple[str, ...], jobs: dict[str, str]) -> list[st.SearchStrategy[Sent]]:
    """Generate a request for every operation. Requests that change something name only the other key's indexes."""
    anywhere, elsewhere = st.sampled_from([*own, *others, *TRICKS]), st.sampled_from([*others, *TRICKS])
    document, key = st.sampled_from(MARKS), st.sampled_from(["self2", "a" * 16])
    searched = st.fixed_dictionaries(
        {
            "query": st.sampled_from(["chair", "nobody"]),
            "mode": st.sampled_from(["lexical", "hybrid"]),
            "fields": st.just(["title", "text", "metadata"]),
            "like": st.sampled_from([[], [MARKS[0]], [MARKS[-1]]]),
            "facets": st.just({"note": {"terms": 10}}),
            "size": st.just(40),
        }
    )
    several = st.lists(anywhere, min_size=1, max_size=3, unique=True)

    def at(
        operation: str, method: str, index: st.SearchStrategy[str], below: str = "", body: Any = None, **said: Any
    ) -> st.SearchStrategy[Sent]:
        return st.tuples(index, document).map(
            lambda pair: Sent(
                operation, method, f"/v1/indexes/{pair[0]}{below.format(document=pair[1])}", body, dict(said)
            )
        )

    def plain(operation: str, method: str, path: str, body: Any = None) -> st.SearchStrategy[Sent]:
        return st.just(Sent(operation, method, path, body))

    many = [{"id": MARKS[-1], "text": "changed"}]
    rules = {"results": [{"query": "chair", "hide": [MARKS[0], MARKS[-1]]}]}
    found = [
        st.tuples(anywhere, searched).map(
            lambda pair: Sent("search", "POST", f"/v1/indexes/{pair[0]}/search", pair[1])
        ),
        at("search_simply", "GET", anywhere, "/search", q="chair"),
        st.tuples(several, searched).map(
            lambda pair: Sent("search_across", "POST", "/v1/search", pair[1] | {"indexes": pair[0], "like": []})
        ),
        st.lists(st.tuples(anywhere, searched), min_size=1, max_size=4).map(
            lambda some: Sent(
                "search_batch",
                "POST",
                "/v1/search/batch",
                {"searches": [one[1] | {"index": one[0]} for one in some]},
            )
        ),
        at("suggest", "GET", anywhere, "/suggest", q="mark"),
        at("get_document", "GET", anywhere, "/documents/{document}"),
        at("get_chapters", "GET", anywhere, "/chapters/{document}"),
        at("export", "GET", anywhere, "/export", size=2),
        at("get_index", "GET", anywhere),
        at("ingest", "POST", elsewhere, "/documents", many),
        at("put_document", "PUT", elsewhere, "/documents/{document}", {"text": "changed"}),
        at("delete_document", "DELETE", elsewhere, "/documents/{document}"),
        at("list_dead_letters", "GET", anywhere, "/dead-letters", size=1),
        at("list_dead", "GET", anywhere, "/dead", size=1),
        at("retry_dead_letters", "POST", elsewhere, "/dead-letters/retry", {"all": True}),
        at("retry_dead", "POST", elsewhere, "/dead/retry", {"all": True}),
        at("create_index", "PUT", st.sampled_from([*others, "c-new", "abc"]), "", {}),
        at("delete_index", "DELETE", elsewhere),
        at("get_curation", "GET", anywhere, "/curation"),
        at("put_curation", "PUT", elsewhere, "/curation", {"rules": rules}),
        at("list_curation_versions", "GET", anywhere, "/curation/versions"),
        at("get_curation_version", "GET", anywhere, "/curation/versions/1"),
        at("dry_run_curation", "POST", anywhere, "/curation/dry-run", {"rules": rules, "queries": ["chair"]}),
        at("list_queries", "GET", anywhere, "/queries"),
        at("add_queries", "POST", elsewhere, "/queries", {"queries": [{"query": "changed"}]}),
        at("delete_queries", "DELETE", elsewhere, "/queries", all="true"),
        st.sampled_from(sorted(jobs.values())).map(lambda job: Sent("get_job", "GET", f"/v1/jobs/{job}")),
        plain("status", "GET", "/v1/status"),
        plain("list_indexes", "GET", "/v1/indexes"),
        plain("list_encoders", "GET", "/v1/encoders"),
        plain("version", "GET", "/version"),
        plain("who_am_i", "GET", "/v1/keys/self"),
        plain("create_key", "POST", "/v1/keys", {"name": "x", "scopes": ["search"], "indexes": ["*"]}),
        plain("list_keys", "GET", "/v1/keys"),
        key.map(lambda one: Sent("get_key", "GET", f"/v1/keys/{one}")),
        key.map(lambda one: Sent("rotate_key", "POST", f"/v1/keys/{one}/rotate")),
        key.map(lambda one: Sent("revoke_key", "DELETE", f"/v1/keys/{one}")),
    ]
    return found


def test_nobody_reaches_what_is_another_s(jobs: dict[str, str], callers: dict[str, list[httpx.Client]]) -> None:
    each_reaches_its_own(jobs, callers)

    @hypothesis(max_examples=4, derandomize=True, phases=[Phase.generate])
    @given(st.data())
    def nothing_else(data: st.DataObject) -> None:
        for letter, other in (("a", "b"), ("b", "a")):
            sent = data.draw(st.tuples(*doors(INDEXES[letter], INDEXES[other], jobs)))
            assert {one.operation for one in sent} == {
                name for name, rule in OPERATION_SCOPES.items() if rule is not PUBLIC_OPERATION
            }
            for one in sent:
                check(one, other, jobs, callers[letter])

    nothing_else()


def check(sent: Sent, other: str, jobs: dict[str, str], clients: list[httpx.Client]) -> None:
    """Check that answers reveal nothing of the other key's indexes beyond the request, and that access is refused."""
    theirs = {*marks(other), *INDEXES[other], *(jobs[index] for index in INDEXES[other])}
    said = f"{sent.path} {sent.body} {sent.parameters}"
    for client in clients:
        for answer in ask(client, sent):
            assert answer.status_code < 500, (sent, answer.text)
            told = {one for one in theirs if re.search(rf"\b{one}\b", answer.text) and one not in said}
            assert told == set(), (sent, answer.text)
            if re.match(rf"/v1/indexes/({'|'.join(INDEXES[other])})(/|$)", sent.path):
                assert answer.status_code == 403, (sent, answer.text)


def each_reaches_its_own(jobs: dict[str, str], callers: dict[str, list[httpx.Client]]) -> None:
    for letter, names in INDEXES.items():
        reader, operator = callers[letter]
        for index in names:
            body = {"query": "chair", "mode": "lexical"}
            found = reader.post(f"/v1/indexes/{index}/search", json=body).json()["hits"]
            assert {hit["id"] for hit in found} == set(marks(letter))
            assert [one["id"] for one in reader.get(f"/v1/indexes/{index}/dead-letters").json()["dead"]] == marks(
                letter
            )[-1:]
            assert reader.get(f"/v1/jobs/{jobs[index]}").json()["accepted"] == 4
            assert operator.get(f"/v1/indexes/{index}/curation").json()["note"] == marks(letter)[0]
            assert operator.get(f"/v1/indexes/{index}/queries").json()["total"] == 1
        assert [one["name"] for one in operator.get("/v1/status").json()["indexes"]] == sorted(names)


@pytest.fixture
def callers(make_key: Make, as_key: As) -> dict[str, list[httpx.Client]]:
    """Return the clients by letter: one that reads and writes, and one that administers."""
    return {
        letter: [as_key(make_key(scopes, indexes=patterns)) for scopes in (["search", "ingest"], ["admin"])]
        for letter, patterns in PATTERNS.items()
    }
