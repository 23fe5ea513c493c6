"""Every regular expression of the product takes time linear in the text that it reads.

Python's matcher backtracks: an expression like `\\s*\\n` that begins anywhere reads a run of n blank lines n times. A
transcript of 40 KB once took 7 seconds, during which the process answered nobody, its liveness probe included.
"""

import ast
import importlib
import re
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("services", "query_api", "indexer", "models", "cli")
# Packages of training are not installed everywhere, and their input is the user's own corpus.
SKIPPED = ("models/training", "models/decoder", "models/export", "models/projection")
ONCE = {"match", "fullmatch"}
METHODS = ONCE | {"search", "finditer", "findall", "sub", "subn", "split"}
# Runs of these, with these before and after them, make expressions backtrack.
UNITS = (
    "1", "\n", " ", "\t", "a", "A", ".", ",", ":", "'", "-", "<", ">", "(", "[", "]", "{", "`", "~", "#", "=", "_", "/",
    "+", "@", "。", "!", '"', "é", "1\n", "1 ", "a ", "a.", "a'", "a-", "a:", "1:", "1.", "1,", "<v ", "<v.", "<a ",
    "{\\", "[1]", "[1", "# ", " #", "\n ", "\n\n", "- ", "1) ", "! ", "</", "A a ", "\r\n", "/..", "---\n", "\n---",
)  # fmt: skip
BEFORE = ("", "<v", "1", "---\n", "# ", "a", "{\\", "-a")
AFTER = ("", "\n!")
LENGTHS = (500, 2_000, 8_000)
# Linear expressions read 500 characters in less than a tenth of a millisecond, quadratic ones take a whole one.
SCREEN_SECONDS = 0.0003


def read_uses(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, method) for the compiled expressions of a module."""
    tree = ast.parse(path.read_text())
    names = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and ast.unparse(node.value.func) == "re.compile"
        # Expressions over bytes read the output of programs.
        if not ast.unparse(node.value.args[0]).startswith("b")
    }
    used = {name: set[str]() for name in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in METHODS:
            used.get(node.value.id, set()).add(node.attr)
    for name, methods in sorted(used.items()):
        # An expression that another module uses may be used in any way.
        yield from ((name, method) for method in sorted(methods or {"finditer", "fullmatch"}))


def expressions() -> list[tuple[str, str, str]]:
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(SKIPPED) and "re.compile" in path.read_text():
                found += [(name, expression, method) for expression, method in read_uses(path)]
    return found


def seconds(pattern: re.Pattern[str], method: str, text: str, repeats: int) -> float:
    """Return the shortest processor time of some runs."""
    best = float("inf")
    for _ in range(repeats):
        began = time.thread_time()
        if method in ONCE:
            getattr(pattern, method)(text)
        elif method == "search":
            pattern.search(text)
        else:
            for _found in pattern.finditer(text):
                pass
        best = min(best, time.thread_time() - began)
    return best


def hostile_text(before: str, unit: str, after: str, length: int) -> str:
    return before + unit * (length // len(unit)) + after


def find_slow_texts(pattern: re.Pattern[str], method: str) -> Iterator[tuple[str, str, str]]:
    """Yield the hostile texts on which time grows faster than length: more than eightfold for four times the length."""
    for before, unit, after in product(BEFORE, UNITS, AFTER):
        texts = [hostile_text(before, unit, after, length) for length in LENGTHS]
        if seconds(pattern, method, texts[0], 1) < SCREEN_SECONDS:
            continue
        spent = seconds(pattern, method, texts[0], 5)
        for text in texts[1:]:
            shorter, spent = spent, seconds(pattern, method, text, 3)
            if spent < 8 * shorter:
                break
            if spent > 0.2:
                yield before, unit, after
                break
        else:
            yield before, unit, after


@pytest.mark.parametrize(("module", "name", "method"), expressions())
def test_time_grows_with_length_and_no_faster(module: str, name: str, method: str) -> None:
    pattern = getattr(importlib.import_module(module.removesuffix(".py").replace("/", ".")), name)
    assert next(find_slow_texts(pattern, method), None) is None


def library_expressions() -> list[re.Pattern[str]]:
    """Return the expressions of webvtt-py, which matches them at the beginning of a line or a block."""
    modules = [importlib.import_module(f"webvtt.{name}") for name in ("models", "srt", "vtt")]
    owners = [*modules, *(value for module in modules for value in vars(module).values() if isinstance(value, type))]
    found = {value for owner in owners for value in vars(owner).values() if isinstance(value, re.Pattern)}
    return sorted(found, key=lambda pattern: str(pattern.pattern))


def test_the_reader_of_subtitles_takes_linear_time_too() -> None:
    patterns = library_expressions()
    assert len(patterns) > 6
    assert [pattern for pattern in patterns if next(find_slow_texts(pattern, "match"), None)] == []


@pytest.mark.parametrize(
    ("expression", "method"),
    [(r"(?:\d+\s*\n)?\s*\d+:", "match"), (r"\s+$", "search"), (r"<v[ \n]+([^<>]*)>", "finditer")],
)
def test_quadratic_expressions_are_found(expression: str, method: str) -> None:
    assert next(find_slow_texts(re.compile(expression), method), None) is not None
