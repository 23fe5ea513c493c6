"""An operator's work with `sparsewell curation` against a live API."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.curation import app
from services.errors import Conflict, InvalidInput


@pytest.fixture
def run(api: httpx.Client, api_url: str) -> Any:
    assert api.put("/v1/indexes/docs").status_code == 201
    documents = [
        {"id": "a", "text": "Make a temporary folder."},
        {"id": "b", "text": "A directory that is there for a while, and then is not any more."},
    ]
    job = api.post("/v1/indexes/docs/documents", json=documents).json()["job"]["id"]
    assert api.get(f"/v1/jobs/{job}").json()["accepted"] == 2

    def run(command: str, *arguments: str) -> str:
        result = CliRunner().invoke(app, [command, "docs", *arguments, "--api", api_url], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_show_edit_set_try_and_take_back(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text(run("show"))
    shown = json.loads(file.read_text())
    shown["rules"] = {"synonyms": [{"words": ["folder", "directory"]}]}
    file.write_text(json.dumps(shown))

    tried = run("dry-run", str(file), "folder", "while", "--mode", "lexical")
    assert tried.splitlines() == [
        "~ folder  (overlap 0.76)",
        "    + b  enters at 2",
        "= while",
        "1 of 2 queries would have other hits.",
    ]
    assert json.loads(run("show"))["version"] == 0
    assert "version 1" in run("set", str(file), "--note", "asked for")
    with pytest.raises(Conflict, match="stale_curation"):  # the file has version 0
        file.write_text(json.dumps(shown | {"rules": {}}))
        run("set", str(file))
    bare = tmp_path / "bare.json"
    bare.write_text('{"terms": [{"term": "folder", "factor": 2}]}')
    assert "version 2" in run("set", str(bare), "--if-version", "1")
    assert [line.split()[0] for line in run("history").splitlines()] == ["2", "1"]
    assert run("history").splitlines()[1].endswith("asked for")
    assert "version 3" in run("revert", "1")
    assert json.loads(run("show"))["rules"] == {"synonyms": [{"words": ["folder", "directory"]}]}
    assert json.loads(run("show"))["note"] == "rules of version 1"
    assert json.loads(run("show", "--version", "2"))["rules"] == json.loads(bare.read_text())
    assert "version 4" in run("set", str(bare), "--force")


@pytest.mark.parametrize("content", ["", "[]", '{"terms": [{"term": "a", "factor": NaN}]}', '{"a": "\\ud800"}'])
def test_a_file_that_holds_no_rules(run: Any, tmp_path: Path, content: str) -> None:
    file = tmp_path / "rules.json"
    file.write_text(content)
    with pytest.raises(InvalidInput, match="bad_rules_file"):
        run("set", str(file))
    with pytest.raises(InvalidInput, match="bad_rules_file"):
        run("dry-run", str(tmp_path / "none.json"), "folder")
    good = tmp_path / "good.json"
    good.write_text("{}")
    with pytest.raises(InvalidInput, match="no_queries"):
        run("dry-run", str(good))
