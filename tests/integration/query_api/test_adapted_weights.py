"""Query weights adapted to the documents of an index: the sweeper counts, the API weighs and explains."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.relevance.exact_search import encode_documents
from indexer import piece_frequencies
from indexer.piece_frequencies import FrequencyUpdate
from infra.ports import find_free_port
from infra.processes import ChildProcess
from models.export.package import write_reference
from models.judged_collection import CorpusDocument
from models.registry import load_encoder
from services.encoders.catalogue import load_known_encoders
from services.encoders.manifest import WEIGHTS_ROOT
from services.encoders.piece_frequencies import MIN_DOCUMENTS, PieceCounter
from services.encoders.query_table import QueryTable
from services.index_spec import IndexNames, IndexSpec
from services.opensearch.client import Call, SyncSearchClient
from services.opensearch.generations import refresh_call
from services.settings import Settings
from tests.congruence import oracle
from tests.encoding import encoding

Eventually = Callable[[Callable[[], object], float, str], None]
SUBJECTS = ("wing", "engine", "river", "garden", "violin")
QUERY = "the wing of the garden"


def texts(count: int) -> list[str]:
    """Return texts that all hold "wing", and one of five subjects each."""
    return [f"The wing and {SUBJECTS[n % len(SUBJECTS)]} number {n}." for n in range(count)]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Use the stand-in encoder with a reference corpus in which every subject is equally common."""
    directory = tmp_path / "adaptable"
    shutil.copytree(WEIGHTS_ROOT / "standin", directory)
    table, counter = QueryTable.load(directory), PieceCounter()
    for n in range(1000):
        counter.add(table.ids(f"the {SUBJECTS[n % len(SUBJECTS)]}"))
    write_reference(directory, counter.frequencies(), {"made.jsonl": 1000})
    return settings.model_copy(update={"encoder": str(directory), "prune": 0.0})


@pytest.fixture
def encode(settings: Settings) -> Callable[[], None]:
    return encoding(settings.model_copy(update={"encoder": "standin"}))


@pytest.fixture
def counting(settings: Settings) -> Iterator[FrequencyUpdate]:
    with closing(SyncSearchClient(settings)) as search:
        yield FrequencyUpdate(settings, search, load_known_encoders(settings))


@pytest.fixture
def fill(api: httpx.Client, encode: Callable[[], None]) -> Callable[..., None]:
    """Provide `fill(first, last)`: write and encode documents."""

    def add(first: int, last: int, index: str = "notes") -> None:
        documents = [{"id": f"d{n}", "text": text} for n, text in enumerate(texts(last))][first:]
        api.post(f"/v1/indexes/{index}/documents", json=documents).raise_for_status()
        encode()

    return add


def ask(api: httpx.Client, index: str = "notes", **members: Any) -> dict[str, Any]:
    body = {"query": QUERY, "mode": "sparse", "explain": True, "size": 5} | members
    answer: dict[str, Any] = api.post(f"/v1/indexes/{index}/search", json=body).raise_for_status().json()
    return answer


def is_adapted(api: httpx.Client, index: str = "notes") -> bool:
    shown: dict[str, Any] = api.get(f"/v1/indexes/{index}").raise_for_status().json()
    assert shown["adapt_weights"] is True
    return bool(shown["adapted_to"] == 100)


def pieces(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {piece["piece"]: piece for piece in answer["pieces"]}


def adds_up(answer: dict[str, Any]) -> None:
    for hit in answer["hits"]:
        assert sum(why["contribution"] for why in hit["why"]) == pytest.approx(hit["scores"]["sparse"], rel=1e-6)


def test_the_sweeper_counts_and_searches_are_weighed_by_it(
    api: httpx.Client,
    fill: Callable[..., None],
    settings: Settings,
    start_service_process: Callable[[str], ChildProcess],
    eventually: Eventually,
) -> None:
    api.put("/v1/indexes/notes").raise_for_status()
    fill(0, 100)
    start_service_process("sweeper")
    eventually(lambda: is_adapted(api), 60, "the sweeper has counted the documents")
    answer = ask(api)
    adds_up(answer)
    # A hundred documents are less than a sample, so the sweeper counted all of them.
    own, counter = QueryTable.load(Path(settings.encoder)), PieceCounter()
    for text in texts(100):
        counter.add(own.ids(text))
    adapted = own.adapt(counter.frequencies())
    found = pieces(answer)
    assert found.keys() == {"the", "wing", "of", "garden"}
    for piece in found.values():
        assert piece["weight"] == adapted.weight(piece["id"])
        assert piece["encoder_weight"] == own.weight(piece["id"])
        assert piece["factor"] * piece["encoder_weight"] == pytest.approx(piece["weight"])
    # All documents hold "wing"; "garden" is in as large a share of the documents as of the reference.
    assert found["wing"]["factor"] < 0.5
    assert found["garden"]["factor"] == pytest.approx(1, abs=0.05)
    assert all(hit["id"] in {f"d{n}" for n in range(3, 100, 5)} for hit in answer["hits"])
    hybrid = ask(api, mode="hybrid")
    assert pieces(hybrid) == found
    # The scores are those that the oracle predicts from the adapted weights.
    encoder = load_encoder("standin")
    documents = [CorpusDocument(f"d{n}", "", text) for n, text in enumerate(texts(100))]
    vectors = encode_documents(encoder, documents, encoder.manifest.window, IndexSpec().document_top_k)
    predicted = oracle.Oracle(
        {name: dict(zip(v.ids.tolist(), v.weights.tolist(), strict=True)) for name, v in vectors.items()}
    )
    whole = ask(api, size=100, explain=False)
    hits = [(hit["id"], oracle.float32(hit["score"])) for hit in whole["hits"]]
    oracle.check(predicted.scores(adapted.encode(QUERY).by_id()), hits, 100)


def test_too_few_documents_and_fixed_weights_are_left_alone(
    api: httpx.Client, fill: Callable[..., None], counting: FrequencyUpdate
) -> None:
    api.put("/v1/indexes/notes").raise_for_status()
    api.put("/v1/indexes/fixed", json={"adapt_weights": False}).raise_for_status()
    assert not counting.update()  # there are no documents yet
    fill(0, MIN_DOCUMENTS - 1)
    fill(0, 100, "fixed")
    assert not counting.update()
    assert not is_adapted(api)
    shown = api.get("/v1/indexes/fixed").json()
    assert (shown["adapt_weights"], shown["adapted_to"]) == (False, 0)
    for index in ("notes", "fixed"):
        answer = ask(api, index)
        adds_up(answer)
        assert all("factor" not in piece for piece in answer["pieces"])


def test_an_index_of_long_documents_is_adapted(
    api: httpx.Client, fill: Callable[..., None], counting: FrequencyUpdate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a sample's characters may not leave fewer documents than an index needs."""
    monkeypatch.setattr(piece_frequencies, "SAMPLE_CHARACTERS", 400)
    monkeypatch.setattr(piece_frequencies, "MAX_TEXT_CHARACTERS", 5)
    api.put("/v1/indexes/notes").raise_for_status()
    fill(0, 100)
    assert counting.update() == {"generations": 1}


def test_a_search_needs_no_record(
    api: httpx.Client, fill: Callable[..., None], counting: FrequencyUpdate, settings: Settings, eventually: Eventually
) -> None:
    """A generation may name frequencies that are gone or damaged: the encoder's own weights answer."""
    api.put("/v1/indexes/notes").raise_for_status()
    fill(0, 100)
    names = IndexNames(settings.index_prefix)
    assert counting.update() == {"generations": 1}
    counting.search.send(refresh_call(names.frequencies))
    damage = {"script": {"source": "ctx._source.counts = 'damaged'"}}
    path = f"{settings.opensearch_url}/{names.frequencies}/_update_by_query"
    assert httpx.post(path, json=damage, params={"refresh": "true"}).raise_for_status().json()["updated"] == 1
    answer = ask(api)
    adds_up(answer)
    assert all("factor" not in piece for piece in answer["pieces"])
    counting.search.send(Call("DELETE", f"/{names.frequencies}.1"))
    adds_up(ask(api))
    # The sweeper notices the missing record and counts again.
    assert counting.update() == {"generations": 1}
    eventually(lambda: "factor" in ask(api)["pieces"][0], 60, "searches are adapted again")


def test_counts_follow_the_documents_and_pages_keep_theirs(
    api: httpx.Client,
    fill: Callable[..., None],
    counting: FrequencyUpdate,
    settings: Settings,
    eventually: Eventually,
    live_api: Callable[[Settings], AbstractContextManager[str]],
) -> None:
    api.put("/v1/indexes/notes").raise_for_status()
    fill(0, 100)
    assert counting.update() == {"generations": 1}
    assert not counting.update()  # nothing has changed
    eventually(lambda: "factor" in ask(api)["pieces"][0], 60, "searches are adapted")
    before = ask(api)
    first = ask(api, cursor="*")
    fill(100, 115)
    assert not counting.update()  # by less than a fifth
    fill(115, 150)
    assert counting.update() == {"generations": 1}
    eventually(lambda: pieces(ask(api)) != pieces(before), 60, "searches are adapted to more documents")
    second = ask(api, cursor=first["cursor"])
    assert pieces(second) == pieces(first) == pieces(before)
    adds_up(second)
    # The record before the newest is kept, for pages that another process answers.
    fill(150, 200)
    assert counting.update() == {"generations": 1}
    records = IndexNames(settings.index_prefix).frequencies
    counting.search.send(refresh_call(records))
    hits = counting.search.send(Call("POST", f"/{records}/_search"))["hits"]["hits"]
    assert sorted(hit["_source"]["version"] for hit in hits) == [2, 3]
    position = {"query": QUERY, "mode": "sparse", "explain": True, "size": 5, "cursor": second["cursor"]}
    with live_api(settings.model_copy(update={"api_port": find_free_port()})) as other:
        answer = httpx.post(f"{other}/v1/indexes/notes/search", json=position)
        assert (answer.status_code, answer.json()["code"]) == (404, "cursor_expired")


def test_an_index_that_was_created_again_keeps_its_own_record(
    api: httpx.Client, fill: Callable[..., None], counting: FrequencyUpdate, settings: Settings
) -> None:
    """The index is deleted and created again after the sweeper has listed the generations.

    With the record of the old generation, and its token, no worker could write to the new one.
    """
    api.put("/v1/indexes/notes").raise_for_status()
    fill(0, 100)

    class Client(SyncSearchClient):
        at = ""

        def send(self, call: Call) -> Any:
            if self.at and self.at in call.path + str(call.body):
                self.at = ""
                api.delete("/v1/indexes/notes").raise_for_status()
                api.put("/v1/indexes/notes").raise_for_status()
                fill(0, 100)
            return super().send(call)

    for step in ("random_score", "_mget", "_mapping"):
        with closing(Client(settings)) as search:
            search.at = step
            assert not FrequencyUpdate(settings, search, load_known_encoders(settings)).update()
            assert not search.at, step
        shown = api.get("/v1/indexes/notes").raise_for_status().json()
        assert (shown["adapted_to"], shown["documents"]["encoded"]) == (0, 100)
        fill(100, 101)
        assert api.get("/v1/indexes/notes").json()["documents"]["encoded"] == 101
    assert counting.update() == {"generations": 1}


def test_records_of_deleted_indexes_are_removed(
    api: httpx.Client, fill: Callable[..., None], counting: FrequencyUpdate, settings: Settings
) -> None:
    for index in ("notes", "others"):
        api.put(f"/v1/indexes/{index}").raise_for_status()
        fill(0, 100, index)
    assert counting.update() == {"generations": 2}
    api.delete("/v1/indexes/others").raise_for_status()
    records = IndexNames(settings.index_prefix).frequencies
    counting.search.send(refresh_call(records))
    assert not counting.update()
    counting.search.send(refresh_call(records))
    hits = counting.search.send(Call("POST", f"/{records}/_search"))["hits"]["hits"]
    assert [hit["_source"]["physical"] for hit in hits] == [IndexNames(settings.index_prefix).physical("notes", 1)]


def test_several_indexes_have_one_set_of_weights(
    api: httpx.Client, fill: Callable[..., None], counting: FrequencyUpdate, settings: Settings, eventually: Eventually
) -> None:
    for index, last in (("notes", 100), ("others", 120), ("few", 5)):
        api.put(f"/v1/indexes/{index}").raise_for_status()
        fill(0, last, index)
    assert counting.update() == {"generations": 2}
    for index in ("notes", "others"):
        eventually(lambda index=index: "factor" in ask(api, index)["pieces"][0], 60, "it is adapted")
    body = {"query": QUERY, "indexes": ["notes", "others", "few"], "mode": "sparse", "explain": True, "size": 30}
    answer = api.post("/v1/search", json=body).raise_for_status().json()
    adds_up(answer)
    assert answer["pieces"]["notes"] == answer["pieces"]["others"] == answer["pieces"]["few"]
    # The set is of all counted documents: 220 of which 44 are about gardens.
    own, counter = QueryTable.load(Path(settings.encoder)), PieceCounter()
    for text in texts(100) + texts(120):
        counter.add(own.ids(text))
    together = own.adapt(counter.frequencies())
    for piece in answer["pieces"]["notes"]:
        assert piece["weight"] == together.weight(piece["id"])
    # Equal texts have equal scores in all indexes.
    scores = {hit["score"] for hit in answer["hits"] if hit["id"] == "d3"}
    assert len(scores) == 1
    # An index with fixed weights gives them to all indexes of the search.
    api.put("/v1/indexes/fixed", json={"adapt_weights": False}).raise_for_status()
    fill(0, 5, "fixed")
    body["indexes"] = ["notes", "fixed"]
    answer = api.post("/v1/search", json=body).raise_for_status().json()
    adds_up(answer)
    assert all("factor" not in piece for index in body["indexes"] for piece in answer["pieces"][index])
