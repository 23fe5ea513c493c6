"""All benchmarks that documents name exist, and the list of benchmarks is complete."""

import ast
import re
from pathlib import Path

from benchmarks.__main__ import BENCHMARKS, SELF_CONTAINED_BENCHMARKS

ROOT = Path(__file__).parents[3]
README = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")


def test_each_name_is_a_function_of_its_module() -> None:
    for name, module in BENCHMARKS.items():
        tree = ast.parse((ROOT / "benchmarks" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(SELF_CONTAINED_BENCHMARKS) <= set(BENCHMARKS)


def test_the_readme_lists_every_benchmark() -> None:
    assert set(re.findall(r"^\| `([a-z_0-9]+)(?: [A-Z]+)*`", README, re.MULTILINE)) == set(BENCHMARKS) - {
        "capacity_fit"
    }
    assert "`capacity_fit`" in README


def test_documents_name_benchmarks_that_exist() -> None:
    pages = [ROOT / "benchmarks/README.md", *(ROOT / "docs").rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"python\s+-m\s+benchmarks ([a-z_0-9]+)", page.read_text())}
    assert len(named) > 10
    assert named <= set(BENCHMARKS)
    assert not any("python -m benchmarks." in page.read_text(encoding="utf-8") for page in pages)


def test_the_results_name_commands_that_exist() -> None:
    results = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_0-9]+)(?: [A-Z]+)?`, `[\w.-]+\.json`", results))
    assert len(named) > 10
    assert named <= set(BENCHMARKS)
