"""Traces of real processes as a collector receives them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import redis

from services.queue.lanes import interactive_queue
from services.settings import Settings
from tests.integration.telemetry.collector import Collector, collecting

Start = Callable[..., Any]  # see conftest
Eventually = Callable[[Callable[[], object], float, str], None]
TRACE = "0af7651916cd43dd8448eb211c80319c"
GIVEN = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def traced(collector: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}


def client(settings: Settings) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{settings.api_port}", trust_env=False, timeout=30)


def test_one_trace_from_the_request_through_the_queue_to_the_bulk_write(
    start: Start, settings: Settings, collector: Collector, traced: dict[str, str], eventually: Eventually
) -> None:
    traced |= {"SPARSEWELL_LOG_FORMAT": "json", "SPARSEWELL_LOG_REQUESTS": "true"}
    api, worker = start("api", **traced), start("worker", **traced)
    secret = "a text that nobody else may read"
    with client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()
        headers = {"traceparent": GIVEN, "x-request-id": "mine"}
        documents = [{"id": "1", "text": secret}, {"id": "2", "text": "another"}]
        accepted = http.post("/v1/indexes/notes/documents", json=documents, headers=headers).raise_for_status().json()
        eventually(lambda: collector.named("process sparsewell.encode"), 60, "the worker's spans have come")
        http.post("/v1/indexes/notes/search", json={"query": secret}, headers={"traceparent": GIVEN}).raise_for_status()
        route = "POST /v1/indexes/{index}/search"
        eventually(lambda: collector.named(route), 60, "those of the search have come")
    ours = {span.id: span for span in collector.spans if span.trace == TRACE}

    def way(span: Any) -> list[str]:
        return [span.name, *(way(ours[span.parent]) if span.parent in ours else [span.parent])]

    (processed,) = [span for span in ours.values() if span.name == "process sparsewell.encode"]
    assert way(processed) == [
        "process sparsewell.encode", "send sparsewell.encode.v1", "POST /v1/indexes/{index}/documents",
        "b7ad6b7169203331",
    ]  # fmt: skip
    assert processed.service == "sparsewell-worker"
    assert processed.attributes["request_id"] == "mine"
    children = {span.name for span in ours.values() if span.parent == processed.id}
    assert children >= {"opensearch mget", "encode", "opensearch bulk"}, "the write is in the trace, in its thread"
    (search,) = collector.named(route)
    assert search.trace == TRACE
    assert {span.name for span in ours.values() if span.parent == search.id} >= {
        "search encode", "search shape", "opensearch msearch",
    }  # fmt: skip
    assert not any(b"nobody else" in body for body in collector.raw), "no text is in any span"
    lines = [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["logger"] == "indexer.task_logging"]
    assert (line["trace_id"], line["request_id"], line["job"]) == (TRACE, "mine", accepted["job"]["id"])
    assert line["message"].startswith("encode done in "), "what a line says is never displaced by whose it is"
    said = [json.loads(line) for line in api.log().splitlines() if line.startswith("{")]
    (line,) = [line for line in said if line.get("status") == 202]
    assert (line["request_id"], line["job"], line["index"]) == ("mine", accepted["job"]["id"], "notes")
    assert "nobody else" not in api.log() + worker.log()
    accept = {"accept": "application/openmetrics-text"}
    shown = httpx.get(f"{api.metrics}/metrics", headers=accept, timeout=30, trust_env=False).text
    assert f'# {{trace_id="{TRACE}"}}' in shown, "exemplars lead from a histogram to a trace"


def test_the_sweepers_message_is_linked_to_the_trace_in_which_its_documents_came(
    start: Start, settings: Settings, collector: Collector, traced: dict[str, str], eventually: Eventually
) -> None:
    quick = traced | {"SPARSEWELL_LEASE_SECONDS": "1", "SPARSEWELL_SWEEP_INTERVAL": "0.3"}
    start("api", **quick)
    with client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()
        answer = http.post(
            "/v1/indexes/notes/documents", json=[{"id": "1", "text": "x"}], headers={"traceparent": GIVEN}
        )
        assert answer.json()["queued"]
    with redis.Redis.from_url(settings.redis_url) as broker:
        assert broker.delete(interactive_queue("standin")) == 1, "the message is lost"
    start("sweeper", **quick)
    eventually(lambda: any(TRACE in span.links for span in collector.named("requeue")), 60, "it is enqueued again")
    (linked, *_) = [span for span in collector.named("requeue") if TRACE in span.links]
    assert linked.trace != TRACE, "a link, not a child: its trace is the sweeper's own"
    sent = [span for span in collector.named("send sparsewell.encode.v1") if span.parent == linked.id]
    assert len(sent) == 1


def test_a_message_without_headers_of_ours_is_worked_as_ever(
    start: Start, settings: Settings, collector: Collector, traced: dict[str, str], eventually: Eventually
) -> None:
    start("api")  # without traces, like an older version
    start("worker", **traced)
    with client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()
        http.post("/v1/indexes/notes/documents", json=[{"id": "1", "text": "x"}], headers={"traceparent": GIVEN})
        eventually(
            lambda: http.get("/v1/indexes/notes/documents/1").json().get("state") == "encoded", 30, "it is encoded"
        )
    eventually(lambda: collector.named("process sparsewell.encode"), 60, "the span has come")
    (span,) = collector.named("process sparsewell.encode")
    assert span.parent == ""


def test_a_collector_that_is_away_costs_no_answer(start: Start, settings: Settings) -> None:
    api = start("api", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_BSP_SCHEDULE_DELAY="50")
    with client(settings) as http:
        http.put("/v1/indexes/notes").raise_for_status()
        for header in (GIVEN, "00-nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 4000):
            answer = http.post("/v1/indexes/notes/search", json={"query": "x"}, headers={"traceparent": header})
            assert answer.status_code == 200
    assert "Traceback" not in api.log()
