"""`sparsewell eval` from end to end: a small collection, a live API and a real worker."""

import json
from pathlib import Path

import httpx
import ir_measures
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from infra.processes import ChildProcess
from services.errors import BackendUnavailable, ConfigurationError, Conflict, InvalidInput

DOCUMENTS = {
    "lift": "The lift of a wing grows with the angle of attack until the flow separates.",
    "heat": "Heat transfer from a hot plate to a supersonic stream of air.",
    "shell": "Buckling of thin cylindrical shells under axial pressure.",
    "gas": "Dissociation of gas molecules behind a strong shock wave.",
    "untitled": "",
}
QUERIES = {
    "q1": "lift of a wing",
    "q2": "heat transfer from a plate",
    "long": "shock wave " * 600,
    "q4": "no judgement here",
}
QRELS = "query-id\tcorpus-id\tscore\nq1\tlift\t1\nq2\theat\t1\nq2\tgone\t1\nlong\tgas\t1\nunknown\tlift\t1\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "Small Set"
    path.mkdir()
    corpus = [{"_id": name, "title": "", "text": text} for name, text in DOCUMENTS.items()]
    queries = [{"_id": name, "text": text} for name, text in QUERIES.items()]
    for name, records in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    (path / "qrels.tsv").write_text(QRELS)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_figures_runs_and_where_they_come_from(
    directory: Path, api: httpx.Client, api_url: str, worker: ChildProcess, tmp_path: Path
) -> None:
    out = tmp_path / "results" / "small.json"
    runs = tmp_path / "runs"
    result = run(directory, "--api", api_url, "--json", out, "--run-dir", runs, "--weights", ".6,.4")
    assert result.exit_code == 0, result.output
    for word in ("NDCG@10", "MRR@10", "MAP", "R@100", "R@1000", "p99 ms", "sparse", "lexical", "hybrid"):
        assert word in result.stdout
    for warning in ("1 judged queries have no text", "(gone)", "1 documents have neither", "count as zero"):
        assert warning in " ".join(result.stderr.split())

    report = json.loads(out.read_text())
    assert report["collection"] == {"name": "Small Set", "documents": 5, "queries": 3, "judgements": 4}
    assert report["searches"]["hybrid"] == {"mode": "hybrid", "weights": {"sparse": 0.6, "lexical": 0.4}}
    assert report["comparisons_with_first"]["hybrid"]["queries"] == 3
    assert report["comparisons_with_first"]["hybrid"]["explained"] == [], "no judged document moved"
    assert "lexical over sparse: NDCG@10" in " ".join(result.stdout.split())
    assert report["ingestion"]["states"] == {"pending": 0, "encoded": 4, "dead": 0, "deleted": 0}
    assert report["index"]["encoder"]["name"] == "standin"
    assert {"commit", "machine", "versions", "made_at"} <= report.keys()
    for mode in ("sparse", "lexical", "hybrid"):
        figures = report["modes"][mode]
        # the words of q1 and q2 occur in their documents; the third query is too long for a search
        assert figures["mrr@10"] == pytest.approx(2 / 3, abs=1e-5)
        assert figures["refused"] == {"long": "query_too_long"}
        assert figures["queries"] == 3
        assert 0 < figures["client_ms"]["p50"] <= figures["client_ms"]["p99"]
        assert figures["server_ms"]["p50"] < figures["client_ms"]["p50"]
        trec = list(ir_measures.read_trec_run(str(runs / f"Small Set.{mode}.trec")))
        assert {entry.query_id for entry in trec} == {"q1", "q2"}
        judged = [ir_measures.Qrel(*line.split("\t")[:2], 1) for line in QRELS.splitlines()[1:-1]]
        by_file = ir_measures.calc_aggregate([ir_measures.RR @ 10, ir_measures.nDCG @ 10], judged, trec)
        assert by_file[ir_measures.nDCG @ 10] == pytest.approx(figures["ndcg@10"], abs=1e-5)
    assert api.get("/v1/indexes").json()["indexes"] == []


def test_keep_leaves_the_index_and_a_second_run_refuses_it(
    directory: Path, api: httpx.Client, api_url: str, worker: ChildProcess
) -> None:
    arguments = (directory, "--api", api_url, "--index", "mine", "--modes", "lexical", "--keep")
    assert run(*arguments).exit_code == 0
    assert api.get("/v1/indexes/mine").json()["documents"]["encoded"] == 4
    again = run(*arguments)
    assert isinstance(again.exception, Conflict)
    assert again.exception.code == "index_exists"
    assert api.get("/v1/indexes/mine").json()["documents"]["encoded"] == 4


def test_what_is_wrong_with_the_collection_is_found_before_anything_is_created(
    directory: Path, api: httpx.Client, api_url: str
) -> None:
    (directory / "qrels.tsv").write_text("q1\tlift\n")
    refused = run(directory, "--api", api_url)
    assert isinstance(refused.exception, InvalidInput)
    assert "qrels.tsv, line 1" in str(refused.exception)
    assert api.get("/v1/indexes").json()["indexes"] == []


def test_a_malformed_corpus_leaves_no_index_behind(directory: Path, api: httpx.Client, api_url: str) -> None:
    with (directory / "corpus.jsonl").open("a") as file:
        file.write("{broken\n")
    refused = run(directory, "--api", api_url)
    assert isinstance(refused.exception, InvalidInput)
    assert "corpus.jsonl, line 6" in str(refused.exception)
    assert api.get("/v1/indexes").json()["indexes"] == []


def test_a_size_that_the_api_refuses_is_an_error_and_no_zero(
    directory: Path, api: httpx.Client, api_url: str, worker: ChildProcess
) -> None:
    refused = run(directory, "--api", api_url, "--modes", "sparse", "--search", 'deep={"candidates": 1000000}')
    assert isinstance(refused.exception, InvalidInput)
    assert refused.exception.code == "candidates_too_many"


def test_any_search_is_measured_beside_the_modes_and_may_fail_the_command(
    directory: Path, api: httpx.Client, api_url: str, worker: ChildProcess, tmp_path: Path
) -> None:
    """A query that is a document of the corpus does not find itself, as in BEIR."""
    with (directory / "queries.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "lift", "text": DOCUMENTS["lift"]}) + "\n")
    with (directory / "qrels.tsv").open("a") as file:
        file.write("lift\theat\t1\n")
    runs = tmp_path / "runs"
    result = run(
        directory, "--api", api_url, "--modes", "lexical", "--size", "250", "--run-dir", runs,
        "--spec", '{"windows": "nested"}', "--search", 'best={"mode": "sparse", "prune": 0}',
        "--fail-below", "best:mrr@10=.99", "--json", tmp_path / "result.json",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "best mrr@10: " in result.stderr
    assert "is below 0.99" in result.stderr
    lines = [line.split() for line in (runs / "Small Set.best.trec").read_text().splitlines()]
    assert "lift" in {line[2] for line in lines if line[0] == "q1"}
    assert "lift" not in {line[2] for line in lines if line[0] == "lift"}
    assert "heat" in {line[2] for line in lines if line[0] == "lift"}
    changes = json.loads((tmp_path / "result.json").read_text())["comparisons_with_first"]["best"]["explained"]
    for change in changes:
        for side, ranks in (("before", change["ranks"]), ("after", change["ranks"])):
            assert change[side] or None in ranks or None in change["rival_ranks"]
    compared = CliRunner().invoke(
        app,
        ["eval", "runs", *(str(runs / f"Small Set.{name}.trec") for name in ("lexical", "best")),
         "--qrels", str(directory), "--json", str(tmp_path / "runs.json")],
    )  # fmt: skip
    assert compared.exit_code == 0, compared.output
    report = json.loads((tmp_path / "runs.json").read_text())
    best = next(figures for name, figures in report["runs"].items() if "best" in name)
    # The runs are measured over all judged queries, the evaluation over those with a text.
    assert best["mrr@10"] < 0.99


def test_without_an_api_the_error_says_how_to_start_one(directory: Path) -> None:
    refused = run(directory, "--api", "http://127.0.0.1:9")
    assert isinstance(refused.exception, BackendUnavailable)
    assert "sparsewell up" in str(refused.exception)


def test_without_a_worker_the_wait_ends_with_a_reason(directory: Path, api: httpx.Client) -> None:
    from cli.relevance.live import LiveIndex, ingest_collection
    from models.judged_collection import open_collection

    live = LiveIndex(api, "waiting")
    live.create({})
    with pytest.raises(BackendUnavailable, match="4 of 4 documents are not encoded") as raised:
        ingest_collection(live, open_collection(directory), lambda stage, done, total: None, stalled=1.5)
    assert raised.value.code == "encoding_stalled"


def test_a_batch_that_is_refused_whole_is_counted_not_fatal(
    directory: Path, api: httpx.Client, api_url: str, worker: ChildProcess, tmp_path: Path
) -> None:
    # The first document exceeds a request of eval, so eval sends it alone. It also exceeds the limit of a document.
    lines = [{"_id": "huge", "title": "", "text": "words " * 400_000}, {"_id": "lift", "title": "", "text": "a wing"}]
    (directory / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out.json"
    result = run(directory, "--api", api_url, "--modes", "lexical", "--json", out)
    assert result.exit_code == 0, result.output
    ingestion = json.loads(out.read_text())["ingestion"]
    assert ingestion["accepted"] == 1
    assert len(ingestion["rejected"]) == 1


def test_a_result_that_cannot_be_written_is_refused_first(directory: Path, tmp_path: Path) -> None:
    refused = run(directory, "--api", "http://127.0.0.1:9", "--json", tmp_path)
    assert isinstance(refused.exception, ConfigurationError)
    assert refused.exception.code == "unwritable_file"
