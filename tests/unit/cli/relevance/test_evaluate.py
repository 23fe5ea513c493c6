"""`sparsewell eval chapters`: the table, the file, and options that are refused before the first episode."""

import json
from itertools import permutations
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from services.errors import ConfigurationError, InvalidInput


def about(words: str) -> list[str]:
    return [f"{' '.join(some)} of the day." for some in list(permutations(words.split(), 5))[:300:5]]


def episode(number: int) -> dict[str, object]:
    said = [*about("vineyard grape barrel cellar harvest"), *about("cloud storm hail rain wind")]
    return {
        "id": f"e{number}", "title": "Farming", "description": "",
        "utterances": [{"start": i * 4.0, "speaker": None, "text": text} for i, text in enumerate(said)],
        "chapters": [{"start_utterance": 0, "title": "Grape harvest"}, {"start_utterance": 24, "title": "Storm"}],
    }  # fmt: skip


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    path = tmp_path / "shows.jsonl"
    path.write_text("".join(json.dumps(episode(number)) + "\n" for number in range(8)))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval", "chapters", *map(str, arguments)], env={"COLUMNS": "160"})


def test_engines_and_baselines_are_measured_on_the_held_out_half(episodes: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "chapters.json"
    result = run(episodes, "--encoder", "standin", "--json", out)
    assert result.exit_code == 0, result.output
    for word in ("WindowDiff", "ROUGE-L", "TextTiling", "tiling", "held-out"):
        assert word in result.stdout
    report = json.loads(out.read_text())
    rows = report["sets"]["shows.jsonl"]
    assert 0 < rows["tiling"]["episodes"] < 8
    assert rows["given"]["window_diff"] == 0
    assert rows["given"]["title_rouge_l"] == 1
    assert rows["tiling"]["window_diff"] < rows["one chapter"]["window_diff"]
    assert rows["tiling: titles"]["pk"] == 0
    assert rows["tiling: titles"]["title_rouge_l"] > 0
    assert rows["tiling"]["seconds_an_hour"] > 0
    assert str(tmp_path) not in out.read_text()


def test_a_limit_without_baselines(episodes: Path, tmp_path: Path) -> None:
    out = tmp_path / "chapters.json"
    result = run(episodes, "--encoder", "standin", "--json", out, "--limit", "1", "--half", "all", "--no-baselines")
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["sets"]["shows.jsonl"]
    assert set(rows) == {"tiling", "tiling: titles", "given"}
    assert rows["tiling"]["episodes"] == 1


def test_a_late_engine_counts_as_one_chapter_and_is_reported(episodes: Path, tmp_path: Path) -> None:
    out = tmp_path / "chapters.json"
    result = run(episodes, "--encoder", "standin", "--json", out, "--seconds", "0", "--no-baselines", "--half", "all")
    assert result.exit_code == 0, result.output
    tiling = json.loads(out.read_text())["sets"]["shows.jsonl"]["tiling"]
    assert tiling["late"] == 8
    assert tiling["chapters_per_human"] == 0.5


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--engines", "guess"), "bad_option"),
        (("--engines", ","), "bad_option"),
        (("--half", "third"), "bad_option"),
    ],
)
def test_bad_options_are_refused(episodes: Path, options: tuple[str, ...], code: str) -> None:
    result = run(episodes, "--encoder", "standin", *options)
    assert isinstance(result.exception, InvalidInput)
    assert result.exception.code == code


def test_a_missing_file_of_episodes_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path / "none.jsonl", "--encoder", "standin")
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.code == "unreadable_file"
