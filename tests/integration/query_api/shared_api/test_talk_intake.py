"""Talks through the REST API: the stored form, refusals and repairs, document by document."""

from typing import Any

import httpx
import orjson
import pytest

SEGMENTS = [{"start": 10 * i, "end": 10 * i + 9, "text": f"word{i}.", "speaker": "AB"[i // 2 % 2]} for i in range(6)]


@pytest.fixture
def talks(api: httpx.Client) -> str:
    assert api.put("/v1/indexes/talks", json={"talk": {}}).status_code == 201
    return "/v1/indexes/talks/documents"


def sent(api: httpx.Client, path: str, **members: Any) -> httpx.Response:
    return api.post(path, json=[{"id": "t", "kind": "talk", **members}])


def test_talk_is_journalled_and_found_by_keyword(api: httpx.Client, talks: str) -> None:
    chapters = {"version": "1.2.0", "chapters": [{"startTime": 0, "title": "One"}, {"startTime": 31, "title": "Two"}]}
    answer = sent(api, talks, segments=SEGMENTS, description="About lighthouses", chapters=chapters, duration="1:00")
    assert answer.status_code == 202, answer.text
    assert api.get(f"/v1/jobs/{answer.json()['job']['id']}").json()["states"]["pending"] == 1
    for query in ("word3", "lighthouses"):
        hits = api.get("/v1/indexes/talks/search", params={"q": query, "mode": "lexical"}).json()["hits"]
        assert [hit["id"] for hit in hits] == ["t"]


BAD = [
    ("empty_transcript", {"segments": []}),
    ("unknown_transcript_type", {"transcript": {"type": "audio/mpeg", "text": "x"}}),
    ("bad_transcript", {"transcript": {"type": "text/vtt", "text": "1\n00:00:00,000 --> 00:00:01,000\nx"}}),
    ("several_transcripts", {"text": "a", "segments": SEGMENTS}),
    ("bad_time", {"segments": [{"start": -5, "text": "a"}]}),
    ("chapters_without_times", {"text": "a", "chapters": [{"startTime": 5, "title": "A"}]}),
    ("bad_url", {"text": "a", "url": "javascript:alert(1)"}),
]


def test_each_bad_talk_is_refused_alone(api: httpx.Client, talks: str) -> None:
    lines = [{"id": str(i), "kind": "talk", **members} for i, (_, members) in enumerate(BAD)]
    body = b"\n".join(orjson.dumps(line) for line in [*lines, {"id": "d", "text": "a document"}])
    answer = api.post(talks, content=body, headers={"content-type": "application/x-ndjson"})
    assert answer.status_code == 202
    assert [one["code"] for one in answer.json()["rejected"]] == [code for code, _ in BAD]
    assert answer.json()["accepted"] == ["d"]


def test_talk_needs_an_index_that_declares_it(api: httpx.Client) -> None:
    assert api.put("/v1/indexes/books", json={}).status_code == 201
    answer = sent(api, "/v1/indexes/books/documents", text="a")
    assert answer.status_code == 422
    assert answer.json()["rejected"][0]["code"] == "talk_not_declared"


@pytest.mark.parametrize("form", ["put", "array", "lines"])
def test_a_long_talk_is_taken_where_a_long_document_is_not(api: httpx.Client, talks: str, form: str) -> None:
    segments = [{"start": i * 0.72, "end": i * 0.72 + 0.7, "text": f"w{i} and so"} for i in range(50_000)]
    body = orjson.dumps({"id": "t", "kind": "talk", "segments": segments})
    assert len(body) > 1024**2
    content, kind = {"put": (body, "json"), "array": (b"[" + body + b"]", "json"), "lines": (body, "x-ndjson")}[form]
    headers = {"content-type": f"application/{kind}"}
    if form == "put":
        answer = api.put(f"{talks}/t", content=content, headers=headers)
    else:
        answer = api.post(talks, content=content, headers=headers)
    assert answer.status_code == 202, answer.text
    too_long = api.put(f"{talks}/d", json={"text": "x" * 1024**2})
    assert too_long.json()["code"] == "document_too_large"


def test_a_bad_link_is_refused_when_the_index_is_made(api: httpx.Client) -> None:
    answer = api.put("/v1/indexes/talks", json={"talk": {"link": "javascript:{id}{start}"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
