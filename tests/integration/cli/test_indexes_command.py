"""`sparsewell indexes apply` against a live API: it creates, compares and, on request, rebuilds indexes."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli.indexes import app
from infra.ports import find_free_port
from infra.stack import settings_environment
from services.errors import BackendUnavailable, ConfigurationError
from services.settings import Settings
from tests.preloaded import run_sparsewell

Apply = Callable[..., Result]


@pytest.fixture
def apply(tmp_path: Path, api_url: str) -> Iterator[Apply]:
    def run(indexes: dict[str, Any], *options: str, api: str = api_url) -> Result:
        file = tmp_path / "indexes.json"
        file.write_text(json.dumps({"indexes": indexes}))
        return CliRunner().invoke(app, [str(file), "--api", api, *options], catch_exceptions=False)

    return run


def test_it_makes_what_is_missing_once(apply: Apply, api: httpx.Client) -> None:
    declared = {"first": {"fields": {"year": "number"}}, "second": {"windows": "both"}}
    assert apply(declared, "--check").stdout.splitlines() == ["first: would be created.", "second: would be created."]
    assert api.get("/v1/indexes").json()["indexes"] == []
    assert apply(declared, "--wait", "30").stdout.splitlines() == ["first: created.", "second: created."]
    assert api.get("/v1/indexes/second").json()["windows"] == "both"
    again = apply(declared)
    assert (again.exit_code, again.stdout.splitlines()) == (0, ["first: as declared.", "second: as declared."])


def test_an_index_that_differs_is_named_and_left_alone(apply: Apply, api: httpx.Client) -> None:
    apply({"first": {}})
    result = apply({"first": {"fields": {"year": "number"}, "language": "standard"}, "second": {}})
    assert result.exit_code == 1
    assert 'first: language is "english", declared is "standard".' in result.stderr
    assert result.stdout == "second: created.\n"
    assert api.get("/v1/indexes/first").json()["fields"] == {}
    assert apply({"first": {"language": "standard"}}, "--check").exit_code == 1


@pytest.mark.usefixtures("worker")
def test_an_index_that_differs_is_built_anew(
    tmp_path: Path, settings: Settings, apply: Apply, api: httpx.Client, api_url: str, eventually: Callable[..., None]
) -> None:
    apply({"first": {}})
    document = {"id": "1", "text": "A physician prescribes drugs.", "metadata": {}}
    api.post("/v1/indexes/first/documents", json=[document]).raise_for_status()
    eventually(lambda: api.get("/v1/indexes/first").json()["documents"]["encoded"] == 1, 60, "it is encoded")
    file = tmp_path / "wanted.json"
    file.write_text(json.dumps({"indexes": {"first": {"fields": {"year": "number"}, "windows": "both"}}}))
    # a separate process with the settings of the API, as in the Job
    command = ["indexes", "apply", str(file), "--api", api_url, "--reindex"]
    environment = os.environ | settings_environment(settings)
    done = run_sparsewell(*command, environment=environment)
    assert done.returncode == 0, done.stderr
    shown = api.get("/v1/indexes/first").json()
    assert (shown["fields"], shown["windows"], shown["documents"]["encoded"]) == ({"year": "number"}, "both", 1)


def test_no_api_is_a_failure_unless_it_may_be_missing(apply: Apply) -> None:
    nowhere = f"http://127.0.0.1:{find_free_port()}"
    for options in ([], ["--check"], ["--wait", "1"]):
        with pytest.raises(BackendUnavailable, match="api_unavailable"):
            apply({"first": {}}, *options, api=nowhere)
    skipped = apply({"first": {}}, "--check", "--skip-unreachable", api=nowhere)
    assert (skipped.exit_code, "Nothing was compared" in skipped.stdout) == (0, True)


def test_options_that_exclude_each_other_are_refused(apply: Apply) -> None:
    for options in (["--check", "--reindex"], ["--skip-unreachable"]):
        with pytest.raises(ConfigurationError, match="bad_options"):
            apply({}, *options)
