"""Commands with bad arguments print one line with a code and start nothing."""

import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.api_client import connect_api, index_path, read_bulk_answer, require_writable
from services.errors import ConfigurationError, InvalidInput
from services.settings import format_http_address
from services.web.http_server import open_listener
from tests.preloaded import run_sparsewell

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str | bytes, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run_sparsewell(*arguments, environment={**os.environ, **environment})


class Recorder(http.server.BaseHTTPRequestHandler):
    """A handler that answers as an API without indexes, and keeps the requested paths."""

    paths: list[str]

    def do_POST(self) -> None:
        self.paths.append(self.path)
        body = b'{"code": "index_not_found", "detail": "There is none."}'
        self.send_response(404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def recording_server() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a server, and the requested paths."""
    paths: list[str] = []
    handler = type("Handler", (Recorder,), {"paths": paths})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["api", "--port", "70000"], "bad_port"),
        (["search", b"\xff", "-i", "x"], "not_utf8"),
        (["search", "words", "-i", b"\xff"], "not_utf8"),
        (["search", "words", "-i", "x", "--filter", "year>1990"], "bad_filter"),
        (["search", "words", "-i", "x", "--filter", b'{"field": "\xff"}'], "bad_filter"),
        (["search", "words", "-i", "x", "--sort", "year:down"], "bad_sort"),
        (["search", "words", "-i", "x", "--sort", b"\xff"], "not_utf8"),
        (["search", "words", "-i", "x", "--facet", "printed:minute"], "bad_facet"),
        (["search", "-i", "x", "--like", b"\xff"], "not_utf8"),
        (["search", "words", "-i", "x", "--after", b"\xff"], "not_utf8"),
        (["search", "words", "-i", "x", "--api", "nonsense"], "bad_address"),
        (["search", "words", "-i", "x", "--api", "http://h:99999"], "bad_address"),
        (["queries", "add", "x"], "no_queries"),
        (["queries", "delete", "x"], "queries_or_all"),
        (["load", str(ROOT / "README.md"), "-i", b"\xff"], "not_utf8"),
        (["load", str(ROOT / "README.md"), "-i", "x", "--rejected", "/proc/no/file"], "unwritable_file"),
    ],
)
def test_bad_arguments_print_one_line_with_a_code(arguments: list[str | bytes], code: str, tmp_path: Path) -> None:
    done = run(*arguments, SPARSEWELL_STATE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert f"[{code}]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_search_quotes_the_index_and_takes_no_proxy(recording_server: tuple[str, list[str]]) -> None:
    address, paths = recording_server
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    done = run("search", "words", "-i", "a/../b?c", "--api", address, **proxy)
    assert "[index_not_found]" in done.stderr
    assert paths == ["/v1/indexes/a%2F..%2Fb%3Fc/search"]


def test_several_indexes_are_searched_as_one(recording_server: tuple[str, list[str]]) -> None:
    address, paths = recording_server
    done = run("search", "words", "-i", "books", "-i", "films", "--api", address)
    assert "[index_not_found]" in done.stderr
    assert paths == ["/v1/search"]


def test_a_client_uses_no_proxy() -> None:
    with connect_api("http://127.0.0.1:1", 1) as client:
        assert not client.trust_env
        assert index_path("é/x") == "/v1/indexes/%C3%A9%2Fx"


def test_a_batch_that_was_refused_as_a_whole_is_an_answer() -> None:
    def send(code: str) -> dict[str, object]:
        raise InvalidInput(code, "No.", rejected=[{"position": 1}])

    assert read_bulk_answer(lambda: send("no_document_accepted")) == {"accepted": [], "rejected": [{"position": 1}]}
    with pytest.raises(InvalidInput, match="other"):
        read_bulk_answer(lambda: send("other"))


def test_an_unwritable_result_file_is_refused_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "result.json")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "old.json").write_text("{}")
    require_writable(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "{}"
    for wrong in (tmp_path, tmp_path / "old.json" / "below.json"):
        with pytest.raises(ConfigurationError) as caught:
            require_writable(wrong)
        assert caught.value.code == "unwritable_file"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "::"])
def test_the_api_listens_on_ipv4_and_ipv6(host: str) -> None:
    with open_listener(host, 0) as listener:
        bound = listener.getsockname()
        assert (":" in host) == (":" in bound[0])
        with connect_api(format_http_address(*bound[:2]), 1) as client:
            assert client.base_url.port == bound[1]


def test_an_unknown_host_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="listen"):
        open_listener("x" * 70 + ".y", 0)


def test_the_former_name_of_dead_letters_still_works() -> None:
    command = ("list", "books", "--api", "http://127.0.0.1:9")
    former, new = run("dead", *command), run("dead-letters", *command)
    notice, _, error = former.stderr.partition("\n")
    assert "sparsewell dead-letters" in notice
    assert (former.returncode, error) == (new.returncode, new.stderr)
    assert "[api_unavailable]" in new.stderr


@pytest.mark.parametrize("option", ["--retry-seconds", "--patience"])
def test_export_takes_the_option_by_both_names(tmp_path: Path, option: str) -> None:
    result = run("export", "books", "-o", str(tmp_path / "a.jsonl"), "--api", "http://127.0.0.1:9", option, "0")
    assert "[api_unavailable]" in result.stderr, result.stderr
