"""Test both clients against a live API with the same tests. The tests await the asynchronous client call by call."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from infra.ports import find_free_port
from infra.processes import ChildProcess
from services.settings import Settings
from sparsewell_client import (
    AsyncClient,
    BackendUnavailable,
    Client,
    Conflict,
    IndexSpec,
    InvalidInput,
    NotFound,
    Rules,
    SearchRequest,
)

BOOKS = [
    {"id": "moby", "title": "Moby-Dick", "text": "A captain hunts a white whale.", "metadata": {"year": 1851}},
    {"id": "emma", "title": "Emma", "text": "A young woman arranges marriages.", "metadata": {"year": 1815}},
    {"id": "sea/wolf", "title": "The Sea-Wolf", "text": "A captain rules his ship.", "metadata": {"year": 1904}},
]


class Awaited:
    """An AsyncClient whose calls block, so that one test serves both clients."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            found = method(*arguments, **named)
            if inspect.isasyncgen(found):

                async def all_of_it() -> list[Any]:
                    return [one async for one in found]

                return self._runner.run(all_of_it())
            return self._runner.run(found)

        return call


@pytest.fixture(params=["blocking", "asynchronous"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Create clients of one kind and close them at the end."""
    made: list[Any] = []
    with asyncio.Runner() as runner:

        def make(address: str, **options: Any) -> Any:
            if request.param == "blocking":
                made.append(Client(address, **options))
            else:
                made.append(Awaited(AsyncClient(address, **options), runner))
            return made[-1]

        yield make
        for client in made:
            client.close()


@pytest.fixture
def client(api_url: str, connect: Callable[..., Any]) -> Any:
    return connect(api_url)


def test_a_library_from_its_creation_to_its_end(client: Any, worker: ChildProcess) -> None:
    made = client.create_index("books", IndexSpec(fields={"year": "number"}))
    assert (made.name, made.fields) == ("books", {"year": "number"})
    with pytest.raises(Conflict) as conflict:
        client.create_index("books")
    assert conflict.value.code == "index_exists"

    answer = client.add("books", [*BOOKS, {"id": "bad"}], key="a-shelf")
    assert answer.accepted == ["moby", "emma", "sea/wolf"]
    assert [(one.id, one.code) for one in answer.rejected] == [("bad", "missing_text")]
    assert client.add("books", [*BOOKS, {"id": "bad"}], key="a-shelf").job == answer.job
    job = client.wait(answer.job.id)
    assert (job.finished, job.states["encoded"]) == (True, 3)

    found = client.search("books", "a captain of a ship", mode="sparse", explain=True)
    assert {hit.id for hit in found.hits[:2]} == {"moby", "sea/wolf"}
    assert sum(why.contribution for why in found.hits[0].why) == pytest.approx(found.hits[0].score, rel=1e-5)
    narrowed = client.search("books", "captain", filter={"field": "year", "range": {"lt": 1900}}, mode="lexical")
    assert [hit.id for hit in narrowed.hits] == ["moby"]
    request = SearchRequest(query="captain", mode="lexical", size=1, fields=["title"])
    assert client.search("books", request).hits[0].metadata is None
    pages = list(client.pages("books", "captain", mode="lexical", size=1))
    assert [[hit.id for hit in page.hits] for page in pages if page.hits] == [[hit.id] for hit in
        client.search("books", "captain", mode="lexical").hits]  # fmt: skip

    both = client.batch([{"index": "books", "query": "captain", "mode": "lexical"}, {"index": "none", "query": "x"}])
    assert [one.status for one in both] == [200, 404]
    assert [hit.id for hit in both[0].answer.hits] == [hit.id for page in pages for hit in page.hits]
    assert both[1].problem.code == "index_not_found"

    completed = client.suggest("books", "sea w", filter={"field": "year", "range": {"gte": 1900}})
    assert [(one.text, one.kind, one.id) for one in completed.suggestions] == [("The Sea-Wolf", "title", "sea/wolf")]
    assert client.suggest("books", "moby", size=1, fuzzy=False).suggestions[0].typed[0].end == 4

    assert client.get_document("books", "sea/wolf").title == "The Sea-Wolf"
    client.put_document("books", "sea/wolf", {"text": "Another text."})
    assert client.get_document("books", "sea/wolf").text == "Another text."
    client.delete_document("books", "sea/wolf")
    with pytest.raises(NotFound) as gone:
        client.get_document("books", "sea/wolf")
    assert gone.value.code == "document_not_found"

    assert [one.name for one in client.list_indexes()] == ["books"]
    assert client.list_dead_letters("books").total == 0
    assert client.retry_dead_letters("books").retried == []
    assert client.list_encoders().encoders[0].fingerprint == found.encoder
    client.delete_index("books")
    with pytest.raises(NotFound):
        client.get_index("books")


def test_several_indexes_and_their_rules(client: Any, eventually: Callable[..., None]) -> None:
    shelves = ["novels", "letters"]
    for index, years in zip(shelves, ((1851, 1904), (1815, 1860)), strict=True):
        client.create_index(index, {"fields": {"year": "number"}})
        client.add(index, [{"id": f"y{y}", "text": "A captain at sea.", "metadata": {"year": y}} for y in years])
    options: dict[str, Any] = {"mode": "lexical", "sort": [{"field": "year"}]}

    def order() -> list[tuple[str, str]]:
        return [(hit.index, hit.id) for hit in client.search_across(shelves, "captain", **options).hits]

    both = [("letters", "y1815"), ("novels", "y1851"), ("letters", "y1860"), ("novels", "y1904")]
    eventually(lambda: order() == both, 60, "all documents are seen")
    pages = list(client.pages_across(shelves, SearchRequest(query="captain"), **options, size=3))
    assert [(hit.index, hit.id) for page in pages for hit in page.hits] == both
    counted = client.search_across(shelves, "captain", mode="lexical", facets={"year": {"ranges": [{"lt": 1900}]}})
    assert (counted.counted.documents, counted.facets["year"].buckets[0].count) == (4, 3)

    assert (client.get_curation("novels").version, client.list_curation_versions("novels")) == (0, [])
    rules = Rules.model_validate({
        "synonyms": [{"from": ["skipper"], "to": ["captain"]}],
        "boosts": [{"filter": {"field": "year", "range": {"gte": 1900}}, "factor": 2}],
    })  # fmt: skip
    tried = client.dry_run_curation("novels", rules, ["skipper", "captain"], mode="lexical")
    assert (tried.queries[0].before, tried.queries[0].after) == ([], ["y1904", "y1851"])
    stored = client.put_curation("novels", rules, note="from the sea", replaces=0)
    assert (stored.version, stored.rules) == (1, rules)
    assert [hit.id for hit in client.search("novels", "skipper", mode="lexical").hits] == ["y1904", "y1851"]
    with pytest.raises(Conflict) as late:
        client.put_curation("novels", {}, replaces=0)
    assert late.value.code == "stale_curation"
    assert client.put_curation("novels", {}, replaces="*").version == 2
    assert client.get_curation("novels", version=1).rules == rules
    assert [(one.version, one.note) for one in client.list_curation_versions("novels")] == [
        (2, ""),
        (1, "from the sea"),
    ]
    with pytest.raises(NotFound) as missing:
        client.get_curation("novels", version=9)
    assert missing.value.code == "curation_version_not_found"
    with pytest.raises(InvalidInput) as bad:
        client.put_curation("novels", {"boosts": [{"filter": {"field": "colour", "is": 1}, "factor": 2}]}, replaces="*")
    assert bad.value.code == "undeclared_metadata"


def test_queries_that_were_asked_elsewhere(client: Any, eventually: Callable[..., None]) -> None:
    client.create_index("asked")
    assert client.list_queries("asked").queries == []
    assert client.add_queries("asked", {"Whale  watching": 40, "sea": 5, "emma": 1}).added == 3
    eventually(lambda: client.list_queries("asked").total == 3, 60, "they are listed")
    listed = client.list_queries("asked", size=2)
    assert [(one.query, one.times) for one in listed.queries] == [("whale watching", 40), ("sea", 5)]
    with pytest.raises(InvalidInput) as personal:
        client.add_queries("asked", {"sea": 1, "jo@example.org": 1})
    assert (personal.value.code, personal.value.extra["position"]) == ("query_not_learnable", 2)
    with pytest.raises(InvalidInput) as unclear:
        client.delete_queries("asked")
    assert (unclear.value.code, "rejected" in unclear.value.extra) == ("invalid_request", False)
    assert client.delete_queries("asked", "Sea").deleted == 1
    assert client.delete_queries("asked", everything=True).deleted == 2


def test_many_documents_go_in_batches(client: Any) -> None:
    client.create_index("many")
    answers = list(client.add_all("many", ({"id": str(i), "text": f"text {i}"} for i in range(25)), batch=10))
    assert [len(answer.accepted) for answer in answers] == [10, 10, 5]
    assert list(client.add_all("many", [])) == []


def test_refusals_are_the_service_s_own(client: Any) -> None:
    client.create_index("refused", {"fields": {"year": "number"}})
    for options, code in (({"size": 0}, "invalid_request"), ({"size": 10**6}, "size_too_large"),
                          ({"filter": {"field": "colour", "is": "red"}}, "undeclared_metadata"),
                          ({"cursor": "nonsense"}, "bad_cursor")):  # fmt: skip
        with pytest.raises(InvalidInput) as caught:
            client.search("refused", "x", **options)
        assert caught.value.code == code
    with pytest.raises(InvalidInput) as caught:
        client.add("refused", [{"id": "a", "text": "x", "metadata": {"year": "MM"}}])
    assert caught.value.code == "no_document_accepted"
    assert caught.value.extra["rejected"][0]["code"] == "bad_metadata"
    with pytest.raises(InvalidInput):
        client.create_index("Not A Name")


def test_a_job_that_nobody_works_on_is_not_waited_for_for_ever(client: Any) -> None:
    client.create_index("idle")
    job = client.add("idle", BOOKS_WITHOUT_YEARS).job.id
    with pytest.raises(BackendUnavailable) as caught:
        client.wait(job, seconds=0.3, every=0.1)
    assert caught.value.code == "job_unfinished"


BOOKS_WITHOUT_YEARS = [{"id": one["id"], "text": one["text"]} for one in BOOKS]


def test_nobody_there(connect: Callable[..., Any]) -> None:
    client = connect(f"http://127.0.0.1:{find_free_port()}")
    with pytest.raises(BackendUnavailable) as caught:
        client.search("books", "x")
    assert caught.value.code == "api_unavailable"


def test_a_client_with_retries_outlasts_a_restart(
    settings: Settings, start_service_process: Callable[[str], ChildProcess], connect: Callable[..., Any]
) -> None:
    address = f"http://{settings.api_host}:{settings.api_port}"
    with pytest.raises(BackendUnavailable):  # the control
        connect(address).list_indexes()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start_service_process, "api")
        assert connect(address, retry_for=60).list_indexes() == []
        starting.result()
