"""Run the examples that use the Python client as a reader would."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from infra.processes import ChildProcess
from services.settings import Settings
from sparsewell_client import Client

NOTES = [
    {"id": "whale", "title": "Whales", "text": "A captain hunts a white whale.", "metadata": {"year": 1851}},
    {"id": "chair", "title": "Chairs", "text": "A carpenter repairs old chairs.", "metadata": {"year": 1990}},
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Use the shipped encoder, because the stand-in does not relate "drugs" to medicine."""
    return settings.model_copy(update={"encoder": Settings.model_fields["encoder"].default})


@pytest.fixture
def notes(api_url: str, worker: ChildProcess) -> Iterator[str]:
    """Create an index of encoded notes and return the address of its API."""
    with Client(api_url) as client:
        client.create_index("notes", {"fields": {"year": "number"}})
        client.wait(client.add("notes", NOTES).job.id)
    yield api_url


@pytest.fixture(scope="module", autouse=True)
def no_telemetry() -> Iterator[None]:
    """Disable the telemetry of both frameworks. Haystack reads its switch at import."""
    switches = {"HAYSTACK_TELEMETRY_ENABLED": "False", "LANGSMITH_TRACING": "false"}
    before = {name: os.environ.get(name) for name in switches}
    os.environ.update(switches)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def test_search_from_python(api_url: str, worker: ChildProcess, capsys: pytest.CaptureFixture[str]) -> None:
    from examples.search_from_python import main

    main(api_url)
    said = capsys.readouterr().out
    assert "4 of 4 notes are encoded" in said
    assert "Chairs" not in said.split("all pages:")[0]
    assert "(expansion)" in said
    assert len(said.split("all pages:")[1].split(",")) >= 3
    with Client(api_url) as client:
        assert client.list_indexes() == []


def test_langchain(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    from examples import langchain_retriever
    from examples.langchain_retriever import SparsewellRetriever

    retriever = SparsewellRetriever(index="notes", address=notes, k=1, options={"mode": "lexical"})
    found = retriever.invoke("captain")
    assert [(one.id, one.page_content, one.metadata["year"]) for one in found] == [("whale", NOTES[0]["text"], 1851)]
    assert found == asyncio.run(retriever.ainvoke("captain"))
    chain = retriever | (lambda documents: documents[0].metadata["title"])
    assert chain.invoke("captain") == "Whales"
    langchain_retriever.main("notes", "captain", notes)
    assert "Whales" in capsys.readouterr().out


def test_haystack(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    from haystack import Pipeline

    from examples import haystack_retriever
    from examples.haystack_retriever import SparsewellRetriever

    pipeline = Pipeline()
    pipeline.add_component("retriever", SparsewellRetriever("notes", notes, top_k=1, options={"mode": "lexical"}))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["examples.haystack_retriever"])
    for one in (pipeline, again):
        (document,) = one.run({"retriever": {"query": "captain"}})["retriever"]["documents"]
        assert (document.id, document.content, document.meta["year"]) == ("whale", NOTES[0]["text"], 1851)
    only_new = {"filter": {"field": "year", "range": {"gte": 1900}}}
    inputs = {"retriever": {"query": "captain carpenter", "options": only_new}}
    assert [one.id for one in pipeline.run(inputs)["retriever"]["documents"]] == ["chair"]
    haystack_retriever.main("notes", "captain", notes)
    assert "Whales" in capsys.readouterr().out
