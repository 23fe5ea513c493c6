"""The corpus of the standard library: content, names, and the same output in each run."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from examples.stdlib import corpus
from examples.stdlib.results import Question, read_questions
from services.documents.document import parse_document
from services.errors import ConfigurationError
from services.index_spec import IndexSpec


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return corpus.read_documents()


@pytest.fixture(scope="module")
def by_id(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {document["id"]: document for document in documents}


def test_thousands_of_documents_sorted_by_unique_ids(documents: list[dict[str, Any]]) -> None:
    ids = [document["id"] for document in documents]
    assert len(ids) > 5000
    assert ids == sorted(set(ids))


def test_the_corpus_does_not_depend_on_the_environment(
    documents: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPARSEWELL_CANARY", "a-value-of-this-machine")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("COLUMNS", "11")
    monkeypatch.chdir(tmp_path)
    assert corpus.read_documents() == documents


def test_the_corpus_has_nothing_of_the_machine(documents: list[dict[str, Any]]) -> None:
    """Defaults such as `environ=os.environ` would put the environment, addresses or paths into a signature."""
    for document in documents:
        assert " object at 0x" not in document["text"], document["id"]
        assert str(Path(os.__file__).parent) not in document["text"], document["id"]
        assert str(Path.home()) + "/" not in document["text"], document["id"]


def test_the_api_accepts_every_document(documents: list[dict[str, Any]]) -> None:
    spec = IndexSpec(fields=corpus.DECLARED_FIELDS)
    for document in documents:
        assert parse_document(document, spec).id == document["id"]


@pytest.mark.parametrize(
    "known, unknown",
    [
        ("os.path.join", "posixpath.join"),
        ("os.listdir", "posix.listdir"),
        ("asyncio.sleep", "asyncio.tasks.sleep"),
        ("builtins.open", "io.open"),
        ("builtins.OSError", "builtins.IOError"),
        ("json.JSONDecoder", "json.decoder.JSONDecoder"),
        ("concurrent.futures.ThreadPoolExecutor", "concurrent.futures.thread.ThreadPoolExecutor"),
        ("random.choice", "random.Random.choice"),
        ("pathlib.Path.read_text", "pathlib.PosixPath.read_text"),
        ("pathlib.PurePath.suffix", "pathlib.Path.suffix"),
        ("socket.socket.connect", "socket.SocketType.connect"),
        ("argparse.ArgumentParser.add_argument", "argparse._ActionsContainer.add_argument"),
    ],
)
def test_each_object_has_one_document_under_its_public_name(by_id: dict[str, Any], known: str, unknown: str) -> None:
    assert known in by_id
    assert unknown not in by_id


@pytest.mark.parametrize(
    "name, kind, module",
    [
        ("json", "module", "json"),
        ("xml.etree.ElementTree", "module", "xml.etree.ElementTree"),
        ("tempfile.TemporaryDirectory", "class", "tempfile"),
        ("time.sleep", "function", "time"),
        ("functools.lru_cache", "function", "functools"),
        ("builtins.str.strip", "method", "builtins"),
        ("pathlib.PurePath.parent", "property", "pathlib"),
    ],
)
def test_kind_and_module(by_id: dict[str, Any], name: str, kind: str, module: str) -> None:
    assert by_id[name]["metadata"] == {"kind": kind, "module": module}


def test_modules_with_side_effects_or_a_screen_are_excluded(by_id: dict[str, Any]) -> None:
    tops = {name.split(".")[0] for name in by_id}
    assert not tops & {"antigravity", "this", "idlelib", "tkinter", "turtle", "test", "lib2to3"}


def test_text_is_the_call_and_then_the_docstring(by_id: dict[str, Any]) -> None:
    text = by_id["tempfile.mkdtemp"]["text"]
    assert text.startswith("mkdtemp(suffix=None, prefix=None, dir=None)\n\nUser-callable function to create")
    # A method's signature has no self, and no default that differs between machines.
    assert by_id["pathlib.Path.mkdir"]["text"].startswith("mkdir(mode=511, parents=False, exist_ok=False)\n\n")
    assert "copy_function=...," in by_id["shutil.copytree"]["text"]


def test_a_class_without_docstring_has_that_of_its_init(by_id: dict[str, Any]) -> None:
    assert "Initializes a new ThreadPoolExecutor" in by_id["concurrent.futures.ThreadPoolExecutor"]["text"]


@pytest.mark.parametrize(
    "name, title",
    [
        ("csv", "csv"),
        ("shutil.copytree", "shutil.copytree (shutil copytree)"),
        ("tempfile.TemporaryDirectory", "tempfile.TemporaryDirectory (tempfile temporary directory)"),
        ("http.server.HTTPServer", "http.server.HTTPServer (http server http server)"),
        ("os.get_terminal_size", "os.get_terminal_size (os get terminal size)"),
        ("builtins.str.strip", "builtins.str.strip (str strip)"),
        ("builtins", "builtins"),
    ],
)
def test_title_spells_the_name_out(name: str, title: str) -> None:
    assert corpus.make_title(name) == title


def test_an_error_of_the_interpreter_is_quoted(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ConfigurationError, match="no such library"):
        corpus.read_documents(python=str(broken))


def test_an_interpreter_that_hangs_is_stopped(tmp_path: Path) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(hanging.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ConfigurationError, match="longer than"):
        corpus.read_documents(python=str(hanging), timeout=0.2)


def test_at_least_sixty_questions_each_once() -> None:
    texts = [question.text for question in read_questions()]
    assert len(texts) >= 60
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("question", read_questions(), ids=lambda question: question.text)
def test_every_answer_is_a_document(by_id: dict[str, Any], question: Question) -> None:
    assert question.answers
    assert not [name for name in question.answers if name not in by_id]


def test_rank_is_that_of_the_first_answer() -> None:
    question = Question("pause", ("time.sleep", "asyncio.sleep"), ("newer.sleep",))
    assert question.rank(["signal.pause", "asyncio.sleep", "time.sleep"]) == 2
    assert question.rank(["newer.sleep"]) == 1
    assert question.rank(["signal.pause"]) is None
    assert question.rank([]) is None
