"""Control characters in texts of documents are shown by the commands, and never reach the terminal."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cli.loading.export import JsonLinesWriter
from cli.search import print_hits, print_suggestions
from cli.terminal import LoadDisplay, format_json, sanitise_line

HOSTILE = "\x1b]0;owned\x07\x1b[2Jtitle\x9b31m\u202egnp.exe"


def test_control_characters_are_made_visible() -> None:
    assert sanitise_line("\x1b[31mred\x07") == r"\x1b[31mred\x07"
    assert sanitise_line("\x9b31m \u202ename \U000e0001") == r"\x9b31m \u202ename \U000e0001"


def test_spaces_and_joiners_stay() -> None:
    assert sanitise_line("a\tb\r\nc\u00a0d\u2028e") == "a b  c d e"
    assert sanitise_line("👩\u200d💻 नमस्ते क्\u200dष") == "👩\u200d💻 नमस्ते क्\u200dष"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not [each for each in sanitise_line(text) if not each.isprintable() and each not in "\u200c\u200d"]
    assert json.loads(format_json({"text": text})) == {"text": text}


def test_json_is_escaped() -> None:
    shown = format_json([HOSTILE])
    assert all(each.isprintable() or each == "\n" for each in shown)
    assert json.loads(shown) == [HOSTILE]


def hit() -> dict[str, Any]:
    why = [{"contribution": 1.0, "list": "sparse", "piece": HOSTILE, "expansion": False}]
    passage = {"text": HOSTILE, "speaker": HOSTILE}
    return {
        "id": HOSTILE, "title": HOSTILE, "score": 1.0, "scores": {"sparse": 1.0}, "passage": passage, "why": why,
        "link": HOSTILE, "chapter": {"number": 1, "title": HOSTILE},
    }  # fmt: skip


@pytest.mark.parametrize("part", ["hits", "suggestions"])
def test_hits_and_suggestions_show_them(part: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=500, color_system=None)
    if part == "hits":
        facets = {"f": {"buckets": [{"value": HOSTILE, "count": 1}], "other": 0}}
        answer = {"hits": [hit()], "facets": facets, "feedback": {"liked": [HOSTILE]}, "timings_ms": {"total": 1.0}}
        print_hits(answer | {"did_you_mean": {"query": HOSTILE}}, console)
    else:
        typed = [{"start": 0, "end": 5}]
        print_suggestions({"titles": True, "suggestions": [{"text": HOSTILE, "typed": typed, "id": HOSTILE}]}, console)
    shown = out.getvalue()
    assert r"\x1b[2Jtitle" in shown
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)


def test_permanent_lines_show_them() -> None:
    """A report may name the columns of a file, which its author chose. Its own line breaks stay."""
    out = io.StringIO()
    with LoadDisplay(Console(file=out, width=500, color_system=None)) as show:
        show.report(f"Unused columns: {HOSTILE}.\nSee --map.")
    assert out.getvalue() == f"Unused columns: {sanitise_line(HOSTILE)}.\nSee --map.\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_export_to_a_terminal_shows_them(is_terminal: bool) -> None:
    out = io.BytesIO()
    line = json.dumps({"id": "a", "text": HOSTILE}, ensure_ascii=False).encode()
    JsonLinesWriter(out, escapes=is_terminal).write([line])
    assert json.loads(out.getvalue()) == json.loads(line)
    assert all(each.isprintable() or each == "\n" for each in out.getvalue().decode()) == is_terminal
