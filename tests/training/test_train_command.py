"""The command `sparsewell train`: kills, resumption and results.

The run that is killed is a process of its own. The other runs are in this process, which has loaded torch already: each
process would take eight seconds for it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import train
from cli.main import main
from models.export.export import ExportOptions, export_encoder
from models.judged_queries import JudgedQueries
from models.registry import load_encoder
from models.training.evaluation import read_curve
from models.training.own.report import largest_weight_changes
from models.training.own.run import OwnCorpusOptions, split_held_out, train_own_encoder
from services.encoders.catalogue import load_known_encoders
from services.encoders.manifest import WEIGHTS_ROOT
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError
from services.settings import Settings
from tests.training.tiny_bert import write_bert
from tests.training.toy_pairs import toy_files, toy_lines, toy_recipe, toy_start

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "cli.main", "train", *map(str, arguments)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process and return its status and output."""

    def call(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(sys, "argv", ["sparsewell", "train", *map(str, arguments)])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return subprocess.CompletedProcess(sys.argv, status, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("toy")
    return toy_start(root / "start"), toy_files(root / "files")


def write_recipe(path: Path, content: dict[str, object]) -> Path:
    """Write a recipe in TOML. Its values are written as JSON, which is valid TOML for these types."""
    top = [
        f"{key} = {json.dumps(value)}" for key, value in content.items() if key not in ("pairs", "encoder", "teachers")
    ]
    tables = [f"[encoder]\n{_lines(content['encoder'])}"]
    for name in ("pairs", "teachers"):
        tables += [f"[[{name}]]\n{_lines(one)}" for one in content.get(name, [])]  # type: ignore[attr-defined]
    path.write_text("\n".join([*top, *tables]) + "\n")
    return path


def _lines(members: object) -> str:
    assert isinstance(members, dict)
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in members.items())


def test_a_killed_run_resumes_and_exports_an_encoder(run: Run, toy: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "recipe.toml",
        toy_recipe(*toy, steps=200, evaluate_every=50, teachers=[{"kind": "bm25"}], distillation_scale=1.0),
    )
    out = tmp_path / "toy-encoder"
    with subprocess.Popen(command("sparse", recipe, "--out", out), cwd=ROOT, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob("checkpoints/checkpoint-*/complete.json")):
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    reached = max(entry["step"] for entry in read_curve(out))
    assert 0 < reached < 200
    found = run("sparse", recipe, "--out", out)
    assert found.returncode == 0, found.stderr
    assert [entry["step"] for entry in read_curve(out)] == list(range(0, 201, 50))
    directory = out / "toy-encoder"
    encoder, table = load_encoder(str(directory)), QueryTable.load(directory)
    assert encoder.manifest.name == "toy-encoder"
    [vector] = encoder.encode(encoder.windows("so tella and"))
    assert vector.dot(table.encode("aska", 10).by_id()) > vector.dot(table.encode("askb", 10).by_id())
    training = json.loads((directory / "manifest.json").read_text())["training"]
    assert training["pairs"] == {"pairs": len({(one["query"], one["passage"]) for one in toy_lines(240)})}
    assert training["best"]["ndcg_at_10"] > training["first"]["ndcg_at_10"]


def test_an_ablation_prints_a_row_for_each_part(run: Run, toy: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", toy_recipe(*toy))
    found = run("ablation", recipe, "--out", tmp_path / "out", "--only", "no expansion")
    assert found.returncode == 0, found.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]}
    # Only expansion finds a passage without a query's word.
    assert rows["whole"]["sparse"] > 0.6
    assert rows["no expansion"]["sparse"] < 0.1
    assert "| no expansion | " in found.stdout
    again = run("ablation", recipe, "--out", tmp_path / "out", "--only", "no expansion")
    assert again.stdout == found.stdout
    assert "Training" not in again.stderr  # finished variants are not trained again


def test_own_needs_only_documents(run: Run, toy: tuple[Path, Path], tmp_path: Path) -> None:
    export_encoder(ExportOptions(str(toy[0]), tmp_path / "toy-start", window=16, overlap=2))
    corpus = tmp_path / "corpus.jsonl"
    filler = ["so", "and", "of", "the", "a"]
    with corpus.open("w") as file:
        for number, line in enumerate(toy_lines(160)):
            text = (
                f"The {line['passage']} dogs {filler[number % 5]} house number {number}. A cat {line['query']} and so."
            )
            file.write(json.dumps({"id": f"d{number}", "title": f"{line['query']} {number}", "text": text}) + "\n")
        file.write("no json\n")
    out = tmp_path / "own-toy"
    found = run(
        "own", corpus, "--out", out, "--start", tmp_path / "toy-start", "--teacher", "none", "--steps", "12", "--batch",
        "8", "--judgements", toy[1] / "toy",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "1 of 161 lines left out" in found.stderr
    report = json.loads((out / "report.json").read_text())
    assert set(report["compared"]) == {"held out", "toy"}
    assert set(report["compared"]["toy"]["ndcg_at_10"]) == {
        "bm25", "start", "start with bm25", "new", "new with bm25",
    }  # fmt: skip
    assert report["pairs"]
    assert report["seconds"].keys() == {"pairs", "training", "comparing"}
    for picture in ("quality.png", "learning.png", "weights.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
        assert picture in found.stdout
    assert load_encoder(str(out / "own-toy")).manifest.licence == "unstated"
    # The report excludes the half of the held-out queries that chose the checkpoint.
    assert report["chosen_by"] > 0
    assert report["chosen_by"] + report["compared"]["held out"]["queries"] <= report["held_out"]
    [known] = [one for one in load_known_encoders(Settings(), str(out / "own-toy")) if one.manifest.name == "own-toy"]
    assert known.directory == out / "own-toy"  # `reindex --encoder` finds it
    assert "points of NDCG@10 over the start" in found.stdout
    assert f"that of step {report['best_step']}" in found.stdout
    assert report["best_step"] in [entry["step"] for entry in report["curve"]]
    text = (out / "report.md").read_text()
    for entry in report["curve"]:
        for name, figures in entry["collections"].items():
            assert f"| {entry['step']} | {name} |" in text
            assert f"| {figures['flops']:.2f} | {'yes' if entry['eligible'] else 'no'} |" in text
    products = report["compared"]["toy"]["products"]
    assert f"| toy | {products['start']:.2f} | {products['new']:.2f} |" in text


def test_commands_that_take_one_device_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for begin in (train.ablation, train.own):
        with pytest.raises(ConfigurationError, match="without accelerate") as caught:
            begin(tmp_path / "given", tmp_path / "out")
        assert caught.value.code == "one_device_only"


def test_the_report_shows_only_changed_pieces() -> None:
    table = QueryTable.load(WEIGHTS_ROOT / "standin")
    assert largest_weight_changes(table, table) == {"fell": [], "rose": []}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "has no documents"),
        (['{"id": "a", "text": "one document only, of a few words"}'], "the command needs at least 64"),
    ],
)
def test_a_corpus_that_is_too_small(
    run: Run, toy: tuple[Path, Path], tmp_path: Path, lines: list[str], said: str
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(line + "\n" for line in lines))
    export_encoder(ExportOptions(str(toy[0]), tmp_path / "toy-start", window=16, overlap=2))
    for start, options in ((str(tmp_path / "toy-start"), ("--teacher", "none")), ("projected-minilm-l6", ())):
        found = run("own", corpus, "--out", tmp_path / "out", "--start", start, *options)
        assert found.returncode == 1
        assert said in found.stderr
        assert "Traceback" not in found.stderr


def test_options_of_the_other_method_are_refused(run: Run, toy: tuple[Path, Path], tmp_path: Path) -> None:
    corpus = tmp_path / "no-corpus"
    refit = run("own", corpus, "--out", tmp_path / "out", "--steps", "3", "--regulariser", "0.1", "--teacher", "none")
    assert refit.returncode == 1
    assert "Leave out --regulariser, --steps, --teacher. [useless_option]" in refit.stderr
    export_encoder(ExportOptions(str(toy[0]), tmp_path / "toy-start", window=16, overlap=2))
    trained = run("own", corpus, "--out", tmp_path / "out", "--start", tmp_path / "toy-start", "--queries", "100")
    assert trained.returncode == 1
    assert "Leave out --queries. [useless_option]" in trained.stderr
    assert not (tmp_path / "out").exists()


def test_names_are_checked_before_pairs_are_made(toy: tuple[Path, Path], tmp_path: Path) -> None:
    start = tmp_path / "toy-start"
    export_encoder(ExportOptions(str(toy[0]), start, window=16, overlap=2))
    unknown = OwnCorpusOptions("nowhere", [])
    no_judgements = OwnCorpusOptions(str(start), [("bm25", "", 1.0)], judgements=tmp_path / "nowhere")
    for options, name, code in (
        (unknown, "Bad Name", "bad_encoder_name"),
        (unknown, "good", "unknown_encoder"),
        (no_judgements, "good", "collection_not_found"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            train_own_encoder(tmp_path / "no-corpus", tmp_path / "out", options, name=name)
        assert caught.value.code == code


def test_reported_queries_do_not_choose_the_checkpoint() -> None:
    """If the reported queries chose the checkpoint, it would seem better than the start by chance."""
    grades = [{0: 1}, {0: 1, 3: 1}, {1: 1}, {2: 1}, {2: 1}, {3: 1}]
    judged = JudgedQueries("held out", list("abcd"), [f"q{number}" for number in range(6)], grades)
    choosing, reporting = split_held_out(judged)
    assert choosing.documents == reporting.documents == judged.documents
    assert sorted(choosing.queries + reporting.queries) == judged.queries
    assert not {min(one) for one in choosing.grades} & {min(one) for one in reporting.grades}
    for one in (choosing, reporting):
        assert [grades[judged.queries.index(query)] for query in one.queries] == one.grades
    alone = split_held_out(JudgedQueries("held out", ["a"], ["q0", "q1", "q2"], [{0: 1}] * 3))
    assert [one.queries for one in alone] == [["q0", "q2"], ["q1"]]
    assert [one.queries for one in split_held_out(JudgedQueries("held out", ["a"], ["q0"], [{0: 1}]))] == [
        ["q0"],
        ["q0"],
    ]


def test_unwritable_passages_are_an_error(run: Run, toy: tuple[Path, Path], tmp_path: Path) -> None:
    found = run("passages", write_recipe(tmp_path / "recipe.toml", toy_recipe(*toy)), "-o", tmp_path / "no" / "p.jsonl")
    assert found.returncode == 1
    assert "unwritable_directory" in found.stderr
    assert "Traceback" not in found.stderr


def test_invalid_recipes_are_refused_before_files_are_read(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('start = "x"\nsteps = -1\n[[pairs]]\npath = "p"\n')
    found = run("sparse", path, "--out", tmp_path / "out")
    assert found.returncode == 1
    assert "steps: Input should be greater than or equal to 1" in found.stderr
    assert not (tmp_path / "out").exists()


def test_teachers_are_listed_with_their_licences(run: Run) -> None:
    found = run("teachers")
    assert found.returncode == 0
    assert "bge-small-en-v1.5: 33M" in found.stdout
    assert "MIT" in found.stdout


def test_a_projected_encoder_is_fitted_by_the_command(run: Run, tmp_path: Path) -> None:
    dense = write_bert(tmp_path / "dense")
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"query": f"wing number {n}", "passage": f"The wing number {n} lifts."} for n in range(1100)]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sizes = ("--queries", "1000", "--passages", "1000", "--window", "32", "--expansions", "20")
    fitted = run("project", dense, pairs, "--out", tmp_path / "mine", *sizes, "--licence", "CC0-1.0")
    assert fitted.returncode == 0, fitted.stderr
    assert "1,000 queries, 1,000 passages" in fitted.stderr
    encoder = load_encoder(str(tmp_path / "mine"), threads=1)
    assert (encoder.manifest.name, encoder.manifest.licence) == ("mine", "CC0-1.0")
    refused = run("project", dense, pairs, "--out", tmp_path / "mine", *sizes)
    assert refused.returncode == 1
    assert "[encoder_exists]" in refused.stderr
