"""Reports about stored evaluations."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from models.significance import compare_rankings
from services.errors import ConfigurationError, InvalidInput

FIGURES = {"ndcg@10": 0.5, "mrr@10": 0.5, "map": 0.4, "recall@100": 1.0, "recall@1000": 1.0}


def result(name: str, **searches: float) -> dict[str, Any]:
    comparison = compare_rankings({"q<1>": 0.0, "q2": 1.0}, {"q<1>": 1.0, "q2": 0.5})
    return {
        "collection": {"name": name, "documents": 1200, "queries": 2, "judgements": 3},
        "modes": {search: FIGURES | {"ndcg@10": value} for search, value in searches.items()},
        "comparisons_with_first": {search: comparison.as_json() for search in list(searches)[1:]},
        "made_at": "2026-12-02T10:00:00Z",
        "commit": "0123456789abcdef",
    }


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval", "report", *map(str, arguments)])


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_the_report_orders_the_searches_of_all_results(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", result("scifact", sparse=0.6, hybrid=0.7))
    second = write(tmp_path / "b.json", result("scifact", **{"<script>": 0.65}))
    out = tmp_path / "pages" / "board.html"
    made = run(first, second, "--out", out)
    assert made.exit_code == 0, made.output
    page = out.read_text()
    assert page.index("<td>hybrid") < page.index("<td>&lt;script&gt;") < page.index("<td>sparse")
    assert page.count("<h2>") == 1
    assert "<script" not in page
    assert "q&lt;1&gt;" in page
    assert "http" not in page, "it opens without a network"
    assert page.count("<rect") == 3


def test_pieces_that_decided_are_shown(tmp_path: Path) -> None:
    stored = result("x", sparse=0.6, hybrid=0.7)
    pieces = [{"list": "sparse", "piece": "<b>", "document": 1.25, "rival": 0.5}]
    stored["comparisons_with_first"]["hybrid"]["explained"] = [
        {
            "query": "q2",
            "text": "a question",
            "document": "d1",
            "ranks": [1, None],
            "rival": "d2",
            "rival_ranks": [3, 1],
            "before": pieces,
            "after": [],
        }
    ]
    made = run(write(tmp_path / "a.json", stored), "--out", tmp_path / "page.html")
    assert made.exit_code == 0, made.output
    page = (tmp_path / "page.html").read_text()
    assert "d1 (rank 1 before, not found after), overtaken by d2 (rank 3 before, rank 1 after)" in page
    assert "<td>&lt;b&gt;<td>sparse<td class=n>1.250<td class=n>0.500" in page


def test_published_figures_are_shown_for_the_whole_collection_alone(tmp_path: Path) -> None:
    stored = result("scifact", sparse=0.6)
    part = write(tmp_path / "part.json", stored)
    stored["collection"] |= {"documents": 5183, "queries": 300}
    whole = write(tmp_path / "whole.json", stored)
    for path, shown in ((part, False), (whole, True)):
        assert run(path, "--out", tmp_path / "page.html").exit_code == 0
        assert ("<td>SPLADE++ED<td class=n>0.704" in (tmp_path / "page.html").read_text()) is shown


def test_runs_are_shown_as_well(tmp_path: Path) -> None:
    report = {"queries": 2, "measure": "ndcg@10", "runs": {"x.trec": FIGURES}, "compared_with": "x", "comparisons": {}}
    made = run(write(tmp_path / "runs.json", report), "--out", tmp_path / "page.html", "--measure", "map")
    assert made.exit_code == 0, made.output
    assert "2 judged queries" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"runs": 1},
        {"collection": {}, "modes": {}},
        "text",
        {"queries": 1, "runs": {}, "comparisons": {"a": {}}},
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object) -> None:
    refused = run(write(tmp_path / "other.json", content), "--out", tmp_path / "page.html")
    assert isinstance(refused.exception, InvalidInput)
    assert refused.exception.code == "malformed_result"


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    assert isinstance(run(tmp_path / "none.json").exception, ConfigurationError)
    (tmp_path / "broken.json").write_text("{")
    broken = run(tmp_path / "broken.json")
    assert isinstance(broken.exception, InvalidInput)
    assert "broken.json" in broken.exception.detail
