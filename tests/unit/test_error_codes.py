"""Compare the error codes of the REST API with the tables of docs/api/errors.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from services import errors

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"`([a-z0-9_]+)`")
# A process reports errors of its configuration when it starts, and not in an answer.
_CLASSES = {
    name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.SparsewellError)
} - {"ConfigurationError"}
ELSEWHERE = {
    # in a successful answer
    "model_not_configured",
    # the client is gone and gets no answer
    "client_disconnected",
    # codes of the worker, the sweeper and the command line
    "bad_vector",
    "damaged_file",
    "redis_full",
    "redis_unavailable",
    "reindex_exists",
    "reindex_taken_over",
    "shard_unavailable",
    # a code of the command that applies declared indexes
    "cannot_reindex",
}


def listed() -> set[str]:
    text = (ROOT / "docs" / "api" / "errors.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    column = {4: 1, 6: 2}  # document codes; request codes, after a status
    return {code for row in rows for code in _CODE.findall(row[column[len(row)]])}


def raised() -> Iterator[str]:
    """Yield the first argument of each error of `query_api` and `services`, as a pattern."""
    for package in ("query_api", "services"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CLASSES:
                    yield from _pattern(node.args[0])


def _pattern(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "[a-z]+" for part in node.values)


def test_every_code_is_documented() -> None:
    documented = listed()
    missing = [
        code for code in raised() if code not in ELSEWHERE and not any(re.fullmatch(code, o) for o in documented)
    ]
    assert sorted(missing) == []


def test_every_documented_code_is_one() -> None:
    source = "\n".join(
        file.read_text() for package in ("query_api", "services") for file in (ROOT / package).rglob("*.py")
    )
    patterns = [code for code in raised() if "[" in code]
    invented = [
        code
        for code in listed()
        if f'"{code}"' not in source and not any(re.fullmatch(pattern, code) for pattern in patterns)
    ]
    assert sorted(invented) == []


def test_what_is_said_elsewhere_exists() -> None:
    assert set(raised()) >= ELSEWHERE
