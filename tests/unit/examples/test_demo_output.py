"""The output of the demo, in a terminal and elsewhere."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from cli import demo, demonstration
from examples.service import IngestProgress
from examples.stdlib.results import Question, QuestionRankings, TimedRanking
from services.errors import ConfigurationError


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def plain() -> Console:
    return Console(file=io.StringIO(), width=80, highlight=False, soft_wrap=True)


def example() -> list[QuestionRankings]:
    question = Question("pause the [program]", ("time.sleep",))
    rankings = {
        "lexical": TimedRanking(("signal.pause", "a" * 60, "b", "time.sleep"), 1.0, 0.5),
        "sparse": TimedRanking(("time.sleep", "c"), 1.0, 0.5),
        "hybrid": TimedRanking((), 1.0, 0.5),
    }
    return [QuestionRankings(question, rankings)]


def test_side_by_side_fits_the_width_and_marks_the_answers(plain: Console) -> None:
    demo.show_contrasts(plain, example())
    lines = printed(plain).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "    signal.pause           * time.sleep               -" in lines
    assert "  Further down: lexical at 4." in lines
    assert "pause the [program]" in printed(plain)  # brackets of the question are not markup
    assert "answered by lexical and sparse (1 of 1 questions)" in printed(plain)


def test_a_long_name_keeps_its_end() -> None:
    assert demo.shorten_name("concurrent.futures.ThreadPoolExecutor", 24) == "..ThreadPoolExecutor"
    assert demo.shorten_name("concurrent.futures.ThreadPoolExecutor", 12) == "..olExecutor"
    assert demo.shorten_name("time.sleep", 10) == "time.sleep"


def test_results_show_counts_and_shares(plain: Console) -> None:
    demo.show_results(plain, example())
    rows = {line.split()[0]: line for line in printed(plain).splitlines() if line.strip()}
    assert "0 (0%)" in rows["lexical"] and "1 (100%)" in rows["lexical"]
    assert rows["sparse"].count("1 (100%)") == 2
    assert rows["hybrid"].count("0 (0%)") == 2


def steps() -> Iterator[IngestProgress]:
    for seconds in range(0, 13):
        yield IngestProgress(100 * seconds, 1200, float(seconds))


def test_progress_without_a_terminal_is_a_line_now_and_then(plain: Console) -> None:
    assert len(list(demonstration.show_progress(plain, steps()))) == 13
    assert printed(plain).splitlines() == [
        "     500 of 1,200 encoded after   5 s, 100 per second",
        "   1,000 of 1,200 encoded after  10 s, 100 per second",
    ]


def test_slow_progress_without_a_terminal_is_a_line_every_thirty_seconds(plain: Console) -> None:
    list(
        demonstration.show_progress(
            plain, (IngestProgress(seconds, 10_000, float(seconds)) for seconds in range(0, 100, 5))
        )
    )
    assert [line.split()[5] for line in printed(plain).splitlines()] == ["30", "60", "90"]


def test_progress_in_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    assert len(list(demonstration.show_progress(console, steps()))) == 13
    assert "1200/1200" in printed(console)


def test_progress_in_a_dumb_terminal_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None, highlight=False)
    assert len(list(demonstration.show_progress(console, steps()))) == 13
    assert len(printed(console).splitlines()) == 2


def test_the_result_file_names_its_source(tmp_path: Path) -> None:
    target = tmp_path / "new" / "result.json"
    demonstration.write_figures(target, "demo", {"documents": 3}, (0.5, 1.234, 2.0))
    result = json.loads(target.read_text())
    assert result["figures"] == {"documents": 3}
    assert result["load_average"]["before"] == [0.5, 1.23, 2.0]
    assert result["versions"]["python"] and result["machine"]["cores"]


def test_a_demonstration_without_the_examples_names_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="make demo-talk") as caught:
        demonstration.run_demonstration(lambda *_: {}, "demo-talk", keep=False, port=None, json=None)
    assert caught.value.code == "needs_checkout"
