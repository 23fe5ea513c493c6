"""Run the demo's steps with a few documents against a live API, a real worker and a real OpenSearch."""

import time

import httpx
import pytest

from examples.service import ServiceIndex, follow_job
from examples.stdlib import corpus
from examples.stdlib.results import MODES, ask_questions, make_searcher, read_questions
from infra.processes import ChildProcess
from services.errors import BackendUnavailable, Conflict


def test_from_documents_to_answers(api: httpx.Client, worker: ChildProcess) -> None:
    documents = [
        document for document in corpus.read_documents() if document["metadata"]["module"] in ("time", "shutil")
    ]
    service = ServiceIndex(api, "stdlib")
    service.recreate({"fields": corpus.DECLARED_FIELDS})
    job = service.send(documents)
    progress = list(follow_job(lambda: service.job(job), time.perf_counter(), interval=0.1, stall_seconds=60))
    assert (progress[-1].encoded, progress[-1].total) == (len(documents), len(documents))
    (answers,) = ask_questions(
        make_searcher(service), [question for question in read_questions() if "free space" in question.text]
    )
    assert set(answers.rankings) == set(MODES)
    assert answers.answered("lexical")
    for ranking in answers.rankings.values():
        assert set(ranking.ids) <= {document["id"] for document in documents}
        assert 0 < ranking.server_ms < ranking.client_ms


def test_a_second_run_starts_from_an_empty_index(api: httpx.Client) -> None:
    service = ServiceIndex(api, "stdlib")
    service.recreate({"fields": corpus.DECLARED_FIELDS})
    service.send([{"id": "left.over", "text": "of an earlier run"}])
    service.recreate({"fields": corpus.DECLARED_FIELDS})
    assert api.get("/v1/indexes/stdlib/documents/left.over").status_code == 404


def test_somebody_elses_index_of_that_name_is_left_alone(api: httpx.Client) -> None:
    api.put("/v1/indexes/stdlib", json={"fields": {"year": "number"}}).raise_for_status()
    with pytest.raises(Conflict) as raised:
        ServiceIndex(api, "stdlib").recreate({"fields": corpus.DECLARED_FIELDS})
    assert raised.value.code == "index_is_not_ours"
    assert api.get("/v1/indexes/stdlib").json()["fields"] == {"year": "number"}


def test_a_refused_document_is_an_error_that_names_the_reason(api: httpx.Client) -> None:
    service = ServiceIndex(api, "stdlib")
    service.recreate({"fields": corpus.DECLARED_FIELDS})
    with pytest.raises(BackendUnavailable, match="missing_text"):
        service.send([{"id": "good", "text": "a text"}, {"id": "bad"}])


def test_what_the_api_says_reaches_the_user(api: httpx.Client) -> None:
    with pytest.raises(BackendUnavailable, match="index_not_found"):
        ServiceIndex(api, "absent").search("anything", "hybrid")
