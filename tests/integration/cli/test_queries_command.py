"""`sparsewell queries` against a live API: count the queries of a log, list them and remove them."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
from typer.testing import CliRunner

from cli.queries import app


def test_a_log_is_counted_listed_and_taken_back(
    api: httpx.Client, api_url: str, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    api.put("/v1/indexes/asked", json={}).raise_for_status()

    def run(command: str, *arguments: str, status: int = 0) -> list[str]:
        result = CliRunner().invoke(app, [command, "asked", *arguments, "--api", api_url], catch_exceptions=False)
        assert result.exit_code == status, result.output
        return [" ".join(line.split()) for line in result.stdout.splitlines()]

    assert run("list") == ["No query is kept."]
    assert run("add", "[bold]Whales", "--times", "40") == ["1 query counted."]
    log = tmp_path / "log.txt"
    log.write_text("\n".join(["sea", "Sea", "", "call 0171 555 0199", *(f"book {number}" for number in range(1100))]))
    counted, left_out = run("add", "--queries", str(log), "--times", "2", status=1)
    assert counted == "1,101 queries counted."
    assert left_out.startswith("1 not kept: ")
    eventually(lambda: json.loads("".join(run("list", "--json")))["total"] == 1102, 60, "they are listed")
    shown = run("list", "-n", "2")
    assert shown == ["times recent query", "40 40.0 [bold]whales", "4 4.0 sea", "2 of 1,102; --size shows more."]
    assert run("delete", "SEA", "never asked") == ["1 query deleted."]
    assert run("delete", "--all") == ["1,101 queries deleted."]
