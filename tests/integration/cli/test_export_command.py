"""`sparsewell export` as a process: `load` reads its output, and a failure leaves no file."""

import gzip
import http.server
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.processes import ChildProcess
from tests.preloaded import run_sparsewell

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Eventually = Callable[[Callable[[], object], float, str], None]
ROOT = Path(__file__).resolve().parents[3]
FIELDS = {"year": "number", "genre": "keyword", "printed": "date", "lent": "boolean", "blurb": "text"}
METADATA: list[dict[str, Any]] = [
    {"year": 1851, "genre": ["sea", "classic"], "printed": "1851-10-18", "lent": False, "blurb": "a \u2028 b"},
    {"year": 0.5, "genre": "one"},
    {},
]


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return run_sparsewell(*map(str, arguments), environment=environment)

    return run


def put(api: httpx.Client, index: str, count: int) -> None:
    api.put(f"/v1/indexes/{index}", json={"fields": FIELDS}).raise_for_status()
    documents = [
        {"id": f"d/{n}", "title": f"T {n}" if n % 2 else "", "text": f"line\r\n\u2028{n}\x00",
         "metadata": METADATA[n % 3], "version": 10 + n}
        for n in range(count)
    ]  # fmt: skip
    api.post(f"/v1/indexes/{index}/documents", json=documents).raise_for_status()


def exported(path: Path) -> dict[str, dict[str, Any]]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return {one["id"]: one for one in map(json.loads, text.decode().split("\n")[:-1])}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_what_export_writes_load_reads_back(
    command: Command, api: httpx.Client, worker: ChildProcess, tmp_path: Path, name: str, eventually: Eventually
) -> None:
    put(api, "books", 25)
    eventually(lambda: api.get("/v1/indexes/books").json()["documents"]["encoded"] == 25, 60, "all are encoded")
    path = tmp_path / name
    done = command("export", "books", "--output", path, "--page", 10, "--vectors")
    assert done.returncode == 0, done.stderr
    assert f"25 documents in {path}" in done.stderr
    loaded = command("load", path, "-i", "copy", "--create")
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    assert loaded.stdout.splitlines() == ["25 accepted, 0 rejected", "25 encoded"]
    for index in ("books", "copy"):
        assert command("export", index, "-o", tmp_path / f"{index}.jsonl", "--vectors").returncode == 0
    original, copy = (api.get(f"/v1/indexes/{index}").json() for index in ("books", "copy"))
    assert {name for name in original if original[name] != copy[name]} <= {"name", "created_at"}
    first, second = exported(tmp_path / "books.jsonl"), exported(tmp_path / "copy.jsonl")
    assert first == second  # documents, versions, states and vectors
    assert first["d/3"]["metadata"] == METADATA[0]
    assert first["d/3"]["version"] == 13
    assert first["d/3"]["text"] == "line\r\n\u20283\x00"
    if name != "a.parquet":
        assert exported(path) == first
    assert sorted(one.name for one in tmp_path.iterdir() if "part" in one.name) == []


def test_what_goes_to_standard_output_can_be_piped(
    command: Command, environment: dict[str, str], api: httpx.Client
) -> None:
    put(api, "books", 3)
    done = command("export", "books")
    assert done.returncode == 0
    assert len(done.stdout.strip("\n").split("\n")) == 3
    line = f"{sys.executable} -m cli.main export books --page 1 | head -n 1"
    piped = subprocess.run(
        ["bash", "-c", line], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(piped.stdout)["state"] == "pending"
    assert "Traceback" not in piped.stderr
    assert "Exception" not in piped.stderr


def test_states_are_chosen(command: Command, api: httpx.Client, tmp_path: Path) -> None:
    put(api, "books", 4)
    for state, count in (("pending", 4), ("dead", 0)):
        assert command("export", "books", "--state", state, "-o", tmp_path / "a.jsonl").returncode == 0
        assert len(exported(tmp_path / "a.jsonl")) == count


def test_an_interrupted_export_leaves_what_was_there(
    command: Command, environment: dict[str, str], api: httpx.Client, tmp_path: Path, eventually: Eventually
) -> None:
    put(api, "books", 800)
    path = tmp_path / "out" / "a.jsonl"
    path.parent.mkdir()
    path.write_text("earlier")
    line = [sys.executable, "-m", "cli.main", "export", "books", "-o", str(path), "--page", "1"]
    with subprocess.Popen(line, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as begun:
        eventually(lambda: any(one.stat().st_size for one in path.parent.glob(".*.part")), 60, "it writes")
        begun.send_signal(signal.SIGINT)
        _, said = begun.communicate(timeout=30)
    assert begun.returncode == 130
    assert "Traceback" not in said
    assert path.read_text() == "earlier"
    assert [one.name for one in path.parent.iterdir()] == ["a.jsonl"]


class Flaky(http.server.BaseHTTPRequestHandler):
    """Forward requests to the API, but cut every second page in the middle and refuse every third with 429."""

    behind: str
    requested_paths: list[str]

    def do_GET(self) -> None:
        self.requested_paths.append(self.path)
        answer = httpx.get(self.behind + self.path, timeout=30, trust_env=False)
        body = answer.content
        if len(self.requested_paths) % 3 == 0:
            body = b'{"code": "opensearch_overloaded", "detail": "Busy."}'
            self.send_response(429)
            self.send_header("retry-after", "0")
        else:
            self.send_response(answer.status_code)
        if len(self.requested_paths) % 2 == 0 and self.server.cuts:  # type: ignore[attr-defined]
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])  # no length, so the body ends with the connection
            return
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def flaky(api_url: str) -> Iterator[http.server.HTTPServer]:
    handler = type("Handler", (Flaky,), {"behind": api_url, "requested_paths": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.cuts = True  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_cut_and_refused_pages_are_asked_for_again(
    command: Command, api: httpx.Client, flaky: http.server.HTTPServer, tmp_path: Path
) -> None:
    put(api, "books", 50)
    path = tmp_path / "a.jsonl"
    done = command("export", "books", "-o", path, "--page", 10, "--api", f"http://127.0.0.1:{flaky.server_port}")
    assert done.returncode == 0, done.stderr
    assert "export_cut" in done.stderr
    assert len(exported(path)) == 50
    requested_paths = flaky.RequestHandlerClass.requested_paths  # type: ignore[attr-defined]
    assert len(requested_paths) > len(set(requested_paths))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nowhere", "-o", "a.jsonl"), "index_not_found"),
        (("books", "-o", "a.zst"), "bad_output"),
        (("books", "--format", "parquet"), "bad_output"),
        (("books", "-o", "/proc/no/file"), "unwritable_file"),
        (("books", "-o", "a.jsonl", "--api", "http://127.0.0.1:9", "--retry-seconds", "0"), "api_unavailable"),
    ],
)
def test_what_cannot_be_exported_says_why_and_leaves_nothing(
    command: Command, api: httpx.Client, tmp_path: Path, arguments: tuple[str, ...], code: str
) -> None:
    put(api, "books", 1)
    made = [tmp_path / "out" / one if one.startswith("a.") else one for one in arguments]
    done = command("export", *made)
    assert done.returncode == 1
    assert f"[{code}]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
