"""A talk's chapters through the REST API: displayed with their state, as files for players, exported and sent again."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from cli.main import app
from services import errors
from sparsewell_client import AsyncClient, Client, InvalidInput, NotFound

ID = "shows/1/chapters"  # an id with slashes and the ending of another route
SEGMENTS = [{"start": 10.0 * i, "end": 10.0 * i + 9, "text": f"word{i} is said.", "speaker": "A"} for i in range(9)]
CHAPTERS = [{"startTime": 0, "title": "One"}, {"startTime": 31, "title": "Two"}, {"startTime": 60, "title": "Three"}]
TALK = {
    "id": ID,
    "kind": "talk",
    "title": "A show",
    "description": "About words",
    "segments": SEGMENTS,
    "chapters": {"version": "1.2.0", "chapters": CHAPTERS},
    "duration": 95,
    "url": "https://a.b/1.mp3",
}
PATH = "/v1/indexes/talks/chapters/shows%2F1%2Fchapters"


@pytest.fixture
def talks(api: httpx.Client) -> httpx.Client:
    assert api.put("/v1/indexes/talks", json={"talk": {"link": "https://play.er/{id}#{start}"}}).status_code == 201
    plain = {"id": "plain", "kind": "talk", "text": "Nothing is timed.\n\nNobody is named."}
    assert (
        api.post("/v1/indexes/talks/documents", json=[TALK, plain, {"id": "d", "text": "no talk"}]).status_code == 202
    )
    return api


def test_the_producers_chapters_are_shown_before_and_after_it_is_encoded(
    talks: httpx.Client, encode: Callable[[], None]
) -> None:
    pending = talks.get(PATH).json()
    assert pending["state"] == "pending"
    assert "chaptering" not in pending
    encode()
    shown = talks.get(PATH).json()
    assert (shown["state"], shown["chaptering"]["engine"], shown["duration"]) == ("encoded", "given", 95)
    assert shown["chapters"] == pending["chapters"]
    assert shown["chapters"][1] == {
        "number": 2,
        "title": "Two",
        "start": 45,
        "end": 90,
        "start_time": 31.0,
        "end_time": 60.0,
        "link": "https://play.er/shows%2F1%2Fchapters#31",
    }
    document = talks.get("/v1/indexes/talks/documents/shows%2F1%2Fchapters").json()
    assert {name: document[name] for name in ("kind", "description", "duration", "url")} == {
        "kind": "talk", "description": "About words", "duration": 95, "url": "https://a.b/1.mp3",
    }  # fmt: skip
    assert [one["title"] for one in document["chapters"]] == ["One", "Two", "Three"]
    assert "segments" not in document
    whole = talks.get("/v1/indexes/talks/documents/shows%2F1%2Fchapters", params={"segments": "true"}).json()
    assert whole["segments"] == SEGMENTS
    text = document["text"]
    assert text[shown["chapters"][1]["start"] :].startswith("word3")
    plain = talks.get("/v1/indexes/talks/chapters/plain").json()
    assert plain["chaptering"]["engine"] == "tiling"
    assert all(
        one["title"] and "start_time" not in one and one["link"].endswith("plain#0") for one in plain["chapters"]
    )
    untimed = talks.get("/v1/indexes/talks/chapters/plain", params={"format": "webvtt"})
    assert (untimed.status_code, untimed.json()["code"]) == (422, "chapters_untimed")


def test_files_for_players(talks: httpx.Client) -> None:
    file = talks.get(PATH, params={"format": "podcasting"})
    assert file.headers["content-type"] == "application/json+chapters"
    assert [one["startTime"] for one in file.json()["chapters"]] == [0.0, 31.0, 60.0]
    track = talks.get(PATH, params={"format": "webvtt"})
    assert track.headers["content-type"] == "text/vtt; charset=utf-8"
    assert "00:00:31.000 --> 00:01:00.000\nTwo" in track.text
    assert talks.get(PATH, params={"format": "youtube"}).text == "0:00 One\n0:31 Two\n1:00 Three\n"


@pytest.mark.parametrize(
    ("status", "code", "path", "form"),
    [
        (404, "document_not_found", "talks/chapters/none", "json"),
        (404, "not_talk", "talks/chapters/d", "json"),
        (404, "no_chapters", "talks/chapters/plain", "webvtt"),
        (404, "index_not_found", "none/chapters/plain", "json"),
        (422, "invalid_request", "talks/chapters/plain", "mp3"),
    ],
)
def test_what_has_no_chapters_says_so(talks: httpx.Client, status: int, code: str, path: str, form: str) -> None:
    answer = talks.get(f"/v1/indexes/{path}", params={"format": form})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_exported_talk_is_taken_again_as_it_is(talks: httpx.Client) -> None:
    lines = [orjson.loads(line) for line in talks.get("/v1/indexes/talks/export").content.splitlines()[:-1]]
    sent = [{name: value for name, value in one.items() if name != "state"} for one in lines]
    assert talks.put("/v1/indexes/copy", json={"talk": {}}).status_code == 201
    answer = talks.post("/v1/indexes/copy/documents", json=sent)
    assert (answer.status_code, answer.json()["rejected"]) == (202, [])
    for one in ("shows%2F1%2Fchapters", "plain", "d"):
        copies = []
        for index in ("talks", "copy"):
            copy = talks.get(f"/v1/indexes/{index}/documents/{one}", params={"segments": "true"}).json()
            copies.append({name: value for name, value in copy.items() if name != "job"})
        assert copies[0] == copies[1]


async def test_clients_and_the_command_read_chapters(talks: httpx.Client) -> None:
    with Client(str(talks.base_url)) as client:
        answer = client.get_chapters("talks", ID)
        assert [one.title for one in answer.chapters] == ["One", "Two", "Three"]
        assert client.export_chapters("talks", ID, "youtube").startswith("0:00 One\n")
        with pytest.raises(NotFound):
            client.export_chapters("talks", "plain", "webvtt")
        segments = client.get_document("talks", ID, segments=True).segments
        assert segments is not None
        assert segments[0].speaker == "A"
    async with AsyncClient(str(talks.base_url)) as client:
        assert await client.get_chapters("talks", ID) == answer
        assert (await client.export_chapters("talks", ID, "webvtt")).startswith("WEBVTT")


def run(talks: httpx.Client, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["chapters", "talks", *arguments, "--api", str(talks.base_url)])


def test_the_command_lists_and_writes(talks: httpx.Client, tmp_path: Any) -> None:
    listed = run(talks, ID)
    assert listed.exit_code == 0, listed.output
    assert "0:00:31  Two" in listed.output
    assert "No chapters." in run(talks, "plain").output
    file = tmp_path / "new" / "chapters.json"
    assert run(talks, ID, "--format", "podcasting", "-o", str(file)).exit_code == 0
    assert json.loads(file.read_text())["title"] == "A show"
    assert json.loads(run(talks, ID, "--format", "json").output)["id"] == ID
    assert isinstance(run(talks, "plain", "--format", "youtube").exception, errors.NotFound)


def test_too_few_for_youtube(talks: httpx.Client) -> None:
    short = TALK | {"id": "short", "chapters": CHAPTERS[:2]}
    assert talks.post("/v1/indexes/talks/documents", json=[short]).status_code == 202
    with Client(str(talks.base_url)) as client, pytest.raises(InvalidInput) as refused:
        client.export_chapters("talks", "short", "youtube")
    assert refused.value.code == "not_for_youtube"
