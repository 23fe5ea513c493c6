"""`sparsewell load` of transcripts through the API and the queue. An index of talks is exported and loaded again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.main import app
from indexer.ingest_task import run_ingest
from indexer.runtime import Runtime, WorkerSettings
from services.settings import Settings

VTT = "WEBVTT\n\n00:00.000 --> 00:05.000\n<v Anna>Hello there.\n\n00:05.000 --> 00:09.000\n<v Bob>Bye.\n"


@pytest.fixture
def sparsewell(
    api: httpx.Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run a command in this process against the API of the test."""
    from infra.stack import settings_environment

    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SPARSEWELL_STATE_DIR", str(tmp_path / "state"))

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, [*map(str, arguments), "--api", str(api.base_url)])

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    talks = tmp_path / "talks"
    talks.mkdir()
    (talks / "one.vtt").write_text(VTT)
    (talks / "one.chapters.json").write_text('{"version": "1.2.0", "chapters": [{"startTime": 0, "title": "A"}]}')
    (talks / "one.meta.json").write_text('{"title": "One", "duration": 10}')
    (talks / "two.srt").write_text("1\n00:00:00,000 --> 00:00:05,000\nHello.\n")
    (talks / "bad.vtt").write_text("no such thing")
    return talks


def shown(api: httpx.Client, index: str, name: str) -> dict[str, Any]:
    answer = api.get(f"/v1/indexes/{index}/documents/{name}", params={"segments": "true"}).raise_for_status().json()
    return {key: value for key, value in answer.items() if key not in ("job", "state")}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_folder_is_loaded_exported_and_loaded_again(
    api: httpx.Client, sparsewell: Callable[..., Any], folder: Path, tmp_path: Path, form: str
) -> None:
    loaded = sparsewell("load", folder, "--kind", "talk", "--index", "talks", "--create", "--no-wait")
    assert loaded.exit_code == 1, loaded.output
    assert "2 accepted, 1 rejected" in loaded.output
    assert "bad.vtt (bad): The transcript does not match its type" in loaded.output
    assert shown(api, "talks", "one")["title"] == "One"
    file = tmp_path / f"talks.{form}"
    assert sparsewell("export", "talks", "-o", file).exit_code == 0
    again = sparsewell("load", file, "--kind", "talk", "--index", "copy", "--create", "--no-wait")
    assert again.exit_code == 0, again.output
    for name in ("one", "two"):
        assert shown(api, "copy", name) == shown(api, "talks", name)


def test_the_queue_takes_and_refuses_talk_as_the_api_does(api: httpx.Client, settings: Settings) -> None:
    assert api.put("/v1/indexes/talks", json={"talk": {}}).status_code == 201
    documents = [
        {"id": "t", "kind": "talk", "transcript": {"type": "text/vtt", "text": VTT}},
        {"id": "empty", "kind": "talk", "segments": []},
        {"id": "type", "kind": "talk", "transcript": {"type": "audio/mpeg", "text": "x"}},
        {"id": "long", "kind": "talk", "segments": [{"text": "x", "start": i} for i in range(50_000)]},
        {"id": "d", "text": "x" * (settings.max_document_bytes + 1)},
    ]
    runtime = Runtime(settings, WorkerSettings())
    message = {"contract": "sparsewell.ingest.v1", "index": "talks", "job": "j", "documents": documents}
    assert run_ingest(runtime, message, "m", redelivered=False) == {"accepted": 2, "rejected": 3}
    runtime.search.close()
    job = api.get("/v1/jobs/j").json()
    assert [(one["id"], one["code"]) for one in job["rejections"]] == [
        ("empty", "empty_transcript"), ("type", "unknown_transcript_type"), ("d", "document_too_large"),
    ]  # fmt: skip
    assert [one["speaker"] for one in shown(api, "talks", "t")["segments"]] == ["Anna", "Bob"]
