"""TREC runs, and the command that compares them."""

import json
from pathlib import Path

import ir_measures
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.relevance.metrics import measure_rankings
from cli.relevance.runs import read_run, write_run
from services.errors import ConfigurationError, InvalidInput

QRELS = "q1 0 a 2\nq1 0 b -1\nq2 0 c 1\n"


@pytest.fixture
def qrels(tmp_path: Path) -> Path:
    path = tmp_path / "qrels.txt"
    path.write_text(QRELS)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval", "runs", *map(str, arguments)], env={"COLUMNS": "160"})


def test_a_run_has_the_trec_format_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "sparse.trec"
    write_run(path, {"q 1": [("a b", 2.5), ("c", 1.25)], "q2": []}, "tag")
    assert path.read_text() == "q_1 Q0 a_b 1 2.5 tag\nq_1 Q0 c 2 1.25 tag\n"
    assert [(d.query_id, d.doc_id, d.score) for d in ir_measures.read_trec_run(str(path))] == [
        ("q_1", "a_b", 2.5),
        ("q_1", "c", 1.25),
    ]
    assert read_run(path) == {"q_1": [("a_b", 2.5), ("c", 1.25)]}


@pytest.mark.parametrize(
    "ranking",
    [
        [("a", 1.0), ("z", 1.0), ("m", 1.0)],
        [("pinned by a rule", 0.1), ("a", 3.0), ("z", 3.0)],
        [("a", 3.0), ("b", 2.0), ("c", 2.0), ("d", 1.0)],
    ],
)
def test_trec_eval_gives_a_written_run_the_same_figures(tmp_path: Path, ranking: list[tuple[str, float]]) -> None:
    path = tmp_path / "run.trec"
    judgements = {"q": {ranking[-1][0]: 1}}
    write_run(path, {"q": ranking}, "tag")
    judged = {"q": {"_".join(document.split()): grade for document, grade in judgements["q"].items()}}
    read = [(d.query_id, d.doc_id, d.score) for d in ir_measures.read_trec_run(str(path))]
    by_trec_eval = ir_measures.calc_aggregate(
        [ir_measures.RR @ 10], judged, {"q": {document: score for _, document, score in read}}
    )
    assert by_trec_eval[ir_measures.RR @ 10] == measure_rankings(judgements, {"q": ranking}).mean["mrr@10"]
    assert measure_rankings(judged, read_run(path)).mean == measure_rankings(judgements, {"q": ranking}).mean


def test_runs_are_measured_and_compared_with_the_first(tmp_path: Path, qrels: Path) -> None:
    good, bad, out = tmp_path / "good.trec", tmp_path / "bad.trec", tmp_path / "out" / "runs.json"
    good.write_text("q1 Q0 a 1 3 x\nq1 Q0 b 2 2 x\nq2 Q0 c 1 1 x\n")
    bad.write_text("q1 Q0 b 1 3 y\nq1 Q0 a 2 2 y\n")
    result = run(bad, good, "--qrels", qrels, "--json", out)
    assert result.exit_code == 0, result.output
    assert "2 queries gained, 0 lost" in " ".join(result.stdout.split())
    report = json.loads(out.read_text())
    assert report["runs"][str(good)]["ndcg@10"] == 1.0
    assert report["runs"][str(bad)]["mrr@10"] == 0.25
    compared = report["comparisons"][str(good)]
    assert [one["query"] for one in compared["gained"]] == ["q2", "q1"]
    assert not compared["beyond_chance"], "two queries prove nothing"


def test_a_run_of_other_queries_is_refused(tmp_path: Path, qrels: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("other Q0 a 1 3 x\n")
    refused = run(path, "--qrels", qrels)
    assert isinstance(refused.exception, InvalidInput)
    assert "belongs to other queries" in refused.exception.detail


@pytest.mark.parametrize(
    "text",
    ["", "q1 Q0 a 1 3\n", "q1 Q0 a 1 nan x\n", "q1 Q0 a 1 high x\n", "q1 Q0 a 1 3 x\nq1 Q0 a 2 2 x\n", "\xff"],
)
def test_malformed_runs_name_the_line(tmp_path: Path, qrels: Path, text: str) -> None:
    path = tmp_path / "run.trec"
    path.write_bytes(text.encode("latin-1"))
    refused = run(path, "--qrels", qrels)
    assert isinstance(refused.exception, InvalidInput)
    assert refused.exception.code == "malformed_run"


def test_missing_files_and_unknown_measures_are_refused(tmp_path: Path, qrels: Path) -> None:
    missing = run(tmp_path / "none.trec", "--qrels", qrels)
    assert isinstance(missing.exception, ConfigurationError)
    assert missing.exception.code == "run_not_found"
    unknown = run(tmp_path / "none.trec", "--qrels", qrels, "--measure", "p@5")
    assert isinstance(unknown.exception, InvalidInput)
    assert unknown.exception.code == "unknown_measure"
