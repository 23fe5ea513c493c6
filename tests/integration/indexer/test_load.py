"""`sparsewell load` and the queue's example as processes, against a live API and a real worker."""

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.processes import ChildProcess
from services.settings import Settings
from tests.integration.indexer.journalled import log_of

Eventually = Callable[[Callable[[], object], float, str], None]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).resolve().parents[3]


def write(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"id": f"d{i}", "text": f"words number {i}"}) + "\n" for i in range(count)))
    return path


def counts(api: httpx.Client, index: str) -> dict[str, int]:
    found: dict[str, int] = api.get(f"/v1/indexes/{index}").raise_for_status().json()["documents"]
    return found


def test_a_file_is_loaded_and_encoded(load: Command, api: httpx.Client, worker: ChildProcess, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(write(tmp_path / "a.jsonl", 230).read_bytes()))
    done = load(path, "--index", "papers", "--create", "--field", "year=number", "--batch", 50)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["230 accepted, 0 rejected", "230 encoded"]
    assert counts(api, "papers")["encoded"] == 230
    assert api.get("/v1/indexes/papers").json()["fields"] == {"year": "number"}
    assert not list((tmp_path / "state" / "loads").iterdir())
    again = load(path, "--index", "papers", "--create")
    assert again.returncode == 0, again.stderr
    assert "Created" not in again.stderr
    assert counts(api, "papers")["encoded"] == 230


@pytest.mark.parametrize("via", ["api", "queue"])
def test_what_is_refused_is_said_with_its_line(
    load: Command, api: httpx.Client, worker: ChildProcess, tmp_path: Path, via: str
) -> None:
    lines = [json.dumps({"id": f"d{i}", "text": "words"}) for i in range(20)]
    lines[3] = ""
    lines[6] = "{bad"
    lines[11] = json.dumps({"id": "d11"})
    lines[16] = "[1]"
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    done = load(path, "-i", "papers", "--create", "--batch", 5, "--via", via, "--rejected", tmp_path / "refused.jsonl")
    assert done.returncode == 1
    assert "16 accepted, 3 rejected" in done.stdout
    assert "16 encoded" in done.stdout
    assert "line 7: Not JSON" in done.stdout
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [(r["line"], r["id"], r["code"]) for r in refused] == [
        (7, None, "invalid_json"), (12, "d11", "missing_text"), (17, None, "not_an_object"),
    ]  # fmt: skip


def test_a_load_that_was_killed_goes_on_where_it_was(
    load: Command, environment: dict[str, str], api: httpx.Client, tmp_path: Path, eventually: Eventually
) -> None:
    path = write(tmp_path / "a.jsonl", 3000)
    api.put("/v1/indexes/papers", json={}).raise_for_status()
    records = tmp_path / "state" / "loads"

    def place() -> int:
        found = [json.loads(one.read_text()) for one in records.glob("*.json")] if records.exists() else []
        return found[0]["place"]["line"] if found else 0

    command = [sys.executable, "-m", "cli.main", "load", str(path), "-i", "papers", "--no-wait", "--batch", "5"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as killed:
        eventually(lambda: place() > 20, 60, "it has begun")
        killed.kill()
    reached = place()
    assert 20 < reached < 3000, "it was killed in the middle"
    done = load(path, "-i", "papers", "--no-wait")
    assert done.returncode == 0, done.stderr
    assert f"Resuming after line {reached:,}" in done.stderr
    assert done.stdout.splitlines() == ["3,000 accepted, 0 rejected"]
    eventually(lambda: counts(api, "papers")["pending"] == 3000, 60, "all are there")
    # The control: the second run sent no acknowledged documents again, except one batch at most.
    versions = [api.get(f"/v1/indexes/papers/documents/d{i}").json()["job"] for i in (0, reached - 1, reached + 5)]
    assert versions[0] != versions[2]
    assert versions[1] != versions[2]


def test_a_batch_that_was_answered_but_not_recorded_is_no_second_job(
    load: Command, environment: dict[str, str], api: httpx.Client, tmp_path: Path, eventually: Eventually
) -> None:
    path = write(tmp_path / "a.jsonl", 30)
    api.put("/v1/indexes/papers", json={}).raise_for_status()
    records = tmp_path / "state" / "loads"
    command = [sys.executable, "-m", "cli.main", "load", str(path), "-i", "papers", "--batch", "10"]

    def recorded() -> dict[str, Any]:
        found = [json.loads(one.read_text()) for one in records.glob("*.json")] if records.exists() else []
        return found[0] if found else {}

    # no worker runs, so the command waits
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as killed:
        eventually(lambda: recorded().get("sent") == 30, 60, "all is sent")
        killed.kill()
    before = {f"d{i}": api.get(f"/v1/indexes/papers/documents/d{i}").json() for i in range(30)}
    (file,) = records.glob("*.json")
    # the record of a process killed before it recorded its first response
    nothing = {"place": {"part": 0, "line": 0, "offset": 0}, "starts": [0], "jobs": [], "sent": 0, "accepted": 0}
    first = recorded() | nothing
    file.write_text(json.dumps(first))
    done = load(path, "-i", "papers", "--no-wait", "--batch", "10")
    assert done.stdout.splitlines() == ["30 accepted, 0 rejected"], done.stderr
    after = {f"d{i}": api.get(f"/v1/indexes/papers/documents/d{i}").json() for i in range(30)}
    assert after == before  # the same job and version
    # the control: a new start is another load
    again = load(path, "-i", "papers", "--no-wait", "--batch", "10")
    assert again.stdout.splitlines() == ["30 accepted, 0 rejected"], again.stderr
    assert api.get("/v1/indexes/papers/documents/d0").json()["job"] != before["d0"]["job"]


def test_an_index_that_was_created_again_is_loaded_from_the_beginning(
    load: Command, environment: dict[str, str], api: httpx.Client, tmp_path: Path, eventually: Eventually
) -> None:
    path = write(tmp_path / "a.jsonl", 30)
    api.put("/v1/indexes/papers", json={}).raise_for_status()
    records = tmp_path / "state" / "loads"
    command = [sys.executable, "-m", "cli.main", "load", str(path), "-i", "papers"]  # no worker runs, so it waits
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as killed:
        eventually(lambda: records.exists() and list(records.glob("*.json")), 60, "all is sent")
        killed.kill()
    before = api.get("/v1/indexes/papers").json()["created_at"]
    api.delete("/v1/indexes/papers").raise_for_status()
    time.sleep(1.1)  # created_at counts seconds
    api.put("/v1/indexes/papers", json={}).raise_for_status()
    assert api.get("/v1/indexes/papers").json()["created_at"] != before
    done = load(path, "-i", "papers", "--no-wait")
    assert "Going on" not in done.stderr
    assert done.stdout.splitlines() == ["30 accepted, 0 rejected"], done.stderr
    eventually(lambda: counts(api, "papers")["pending"] == 30, 60, "all are there")


def test_an_interrupted_load_says_how_to_go_on(
    load: Command, environment: dict[str, str], api: httpx.Client, tmp_path: Path, eventually: Eventually
) -> None:
    path = write(tmp_path / "a.jsonl", 10)
    command = [sys.executable, "-m", "cli.main", "load", str(path), "-i", "papers", "--create"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as waiting:
        eventually(lambda: list((tmp_path / "state").glob("loads/*.json")), 60, "everything is sent")
        time.sleep(1)  # no worker runs, so it waits
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "Repeat the command to resume" in said
    assert "Traceback" not in said
    assert load(path, "-i", "papers", "--no-wait").stdout.splitlines() == ["10 accepted, 0 rejected"]


def test_a_load_waits_for_an_api_that_comes_back(
    settings: Settings,
    environment: dict[str, str],
    start: Callable[..., ChildProcess],
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    path = write(tmp_path / "a.jsonl", 100)
    command = [sys.executable, "-m", "cli.main", "load", str(path), "-i", "papers", "--create", "--no-wait"]
    said = tmp_path / "said"
    with (
        said.open("w") as errors,
        subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as waiting,
    ):  # fmt: skip
        eventually(lambda: "api_unavailable" in said.read_text(), 60, "it has said that it waits")
        late = start("-m", "cli.main", "api")
        eventually(lambda: "listening" in log_of(late), 60, "the API listens")
        output, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, said.read_text()
    assert output.splitlines() == ["100 accepted, 0 rejected"]


CANNOT_BE_LOADED = [
    (("missing.jsonl", "-i", "papers"), "unreadable_file"),
    (("a.jsonl", "-i", "nowhere"), "index_not_found"),
    (("a.jsonl", "-i", "No Name", "--create"), "invalid_index_name"),
    (("a.jsonl", "-i", "papers", "--field", "a=number"), "bad_field"),
    (("a.jsonl", "-i", "papers", "--api", "nonsense"), "bad_address"),
    (("a.jsonl", "-i", "papers", "--api", "http://127.0.0.1:9", "--retry-seconds", "0"), "api_unavailable"),
]


def test_what_cannot_be_loaded_says_why(
    load: Command, api: httpx.Client, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    write(tmp_path / "a.jsonl", 1)
    for arguments, code in CANNOT_BE_LOADED:
        with subtests.test(arguments=arguments, code=code):
            done = load(tmp_path / arguments[0], *arguments[1:])
            assert done.returncode == 1
            assert f"[{code}]" in done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize("client", ["celery", "redis"])
def test_the_example_of_a_producer(
    environment: dict[str, str], settings: Settings, api: httpx.Client, worker: ChildProcess, tmp_path: Path,
    eventually: Eventually, client: str,
) -> None:  # fmt: skip
    api.put("/v1/indexes/papers", json={}).raise_for_status()
    path = write(tmp_path / "a.jsonl", 620)
    with path.open("a") as more:
        more.write('{"id": "no text"}\n')
    command = [
        sys.executable,
        "examples/produce_to_queue.py",
        settings.redis_url,
        "papers",
        str(path),
        "--with",
        client,
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    job = done.stdout.strip()

    def finished() -> bool:
        answer = api.get(f"/v1/jobs/{job}")
        return answer.is_success and answer.json()["accepted"] == 620 and answer.json()["finished"]

    eventually(finished, 60, "the job is finished")
    summary = api.get(f"/v1/jobs/{job}").json()
    assert summary["states"]["encoded"] == 620
    assert [(r["position"], r["code"]) for r in summary["rejections"]] == [(621, "missing_text")]
    assert "words number" not in log_of(worker)
