"""Tests patch public names only. Ruff (SLF001, PLC2701) checks imports and attributes; this test checks strings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def patched(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the string arguments of calls of `setattr`, `delattr` and similar functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in {"setattr", "delattr", "getattr"}:
                yield from (one for one in node.args[:2] if isinstance(one, ast.Constant))


def private(dotted: object) -> bool:
    return isinstance(dotted, str) and any(
        part.startswith("_") and not part.endswith("__") for part in dotted.split(".")
    )


def private_patches(source: str) -> list[str]:
    return [f"{one.lineno}: {one.value}" for one in patched(ast.parse(source)) if private(one.value)]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('patch.setattr("cli.demo._shown", 1)', ["1: cli.demo._shown"]),
        ('patch.setattr(demo, "_shown", 1)', ["1: _shown"]),
        ('getattr(demo, "_shown")', ["1: _shown"]),
        ('patch.setattr(demo, "__file__", 1)\npatch.setattr(demo, "shown", "_word")', []),
    ],
)
def test_private_patches_are_found(source: str, found: list[str]) -> None:
    assert private_patches(source) == found


def test_no_test_patches_a_private_name() -> None:
    files = {file.relative_to(TESTS): private_patches(file.read_text()) for file in TESTS.rglob("*.py")}
    assert {str(file): lines for file, lines in files.items() if lines} == {}
