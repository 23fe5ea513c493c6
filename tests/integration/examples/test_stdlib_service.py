"""The demo's steps against a live API, a real worker and a real OpenSearch, with a few documents."""

import time

import httpx
import pytest

from examples.service import Service, follow
from examples.stdlib import corpus
from examples.stdlib.questions import questions
from examples.stdlib.service import ask, searcher
from examples.stdlib.tally import MODES
from infra.processes import Child
from services.errors import BackendUnavailable, Conflict


def test_from_documents_to_answers(api: httpx.Client, worker: Child) -> None:
    documents = [document for document in corpus.documents() if document["metadata"]["module"] in ("time", "shutil")]
    service = Service(api, "stdlib")
    service.recreate({"fields": corpus.FIELDS})
    job = service.send(documents)
    progress = list(follow(lambda: service.job(job), time.perf_counter(), interval=0.1, patience=60))
    assert (progress[-1].encoded, progress[-1].total) == (len(documents), len(documents))
    (answers,) = ask(searcher(service), [question for question in questions() if "free space" in question.text])
    assert set(answers.rankings) == set(MODES)
    assert answers.answered("lexical")
    for ranking in answers.rankings.values():
        assert set(ranking.ids) <= {document["id"] for document in documents}
        assert 0 < ranking.server_ms < ranking.client_ms


def test_a_second_run_starts_from_an_empty_index(api: httpx.Client) -> None:
    service = Service(api, "stdlib")
    service.recreate({"fields": corpus.FIELDS})
    service.send([{"id": "left.over", "text": "of an earlier run"}])
    service.recreate({"fields": corpus.FIELDS})
    assert api.get("/v1/indexes/stdlib/documents/left.over").status_code == 404


def test_somebody_elses_index_of_that_name_is_left_alone(api: httpx.Client) -> None:
    api.put("/v1/indexes/stdlib", json={"fields": {"year": "number"}}).raise_for_status()
    with pytest.raises(Conflict) as raised:
        Service(api, "stdlib").recreate({"fields": corpus.FIELDS})
    assert raised.value.code == "index_is_not_ours"
    assert api.get("/v1/indexes/stdlib").json()["fields"] == {"year": "number"}


def test_a_refused_document_is_an_error_that_names_the_reason(api: httpx.Client) -> None:
    service = Service(api, "stdlib")
    service.recreate({"fields": corpus.FIELDS})
    with pytest.raises(BackendUnavailable, match="missing_text"):
        service.send([{"id": "good", "text": "a text"}, {"id": "bad"}])


def test_what_the_api_says_reaches_the_user(api: httpx.Client) -> None:
    with pytest.raises(BackendUnavailable, match="index_not_found"):
        Service(api, "absent").search("anything", "hybrid")
