"""Every third-party import is declared, in the base install or in an extra of its package."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLIENT: dict[str, Any] = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# Extras from which the code of a folder may import, beside the base install.
USES = {
    "services": {"aws", "load", "tracing"},
    "query_api": {"oidc"},
    "indexer": {"worker"},
    "models": {"gpu", "train", "worker"},
    "infra": {"cli", "dev", "node", "worker"},
    "cli": {"cli", "eval", "load", "train", "worker"},
    "examples": {"cli", "dev", "frameworks", "worker"},
    "benchmarks": set(EXTRAS),
    "tests": set(EXTRAS),
}
OURS = {*USES, "sparsewell_client", "tests"}
# Distributions with another name than their module, for extras that are not installed here.
OTHER_NAMES = {"Stemmer": "pystemmer", "jwt": "pyjwt", "yaml": "pyyaml"}
# Installed with torch, in the required version, on platforms that have it.
BROUGHT = {"triton"}
# Declared but not imported: uvicorn loads both.
LOADED_BY_NAME = {"httptools", "uvloop"}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def imported(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the top-level name of each third-party import."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            else:
                continue
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in OURS | BROUGHT:
                    yield top, file


def undeclared(folder: Path, declared: set[str]) -> set[str]:
    """Return the imported modules that are in no declared distribution, each with a file."""
    installed = packages_distributions()
    found = set()
    for module, file in imported(folder):
        distributions = installed.get(module, [OTHER_NAMES.get(module, module)])
        if not {canonicalize_name(each) for each in distributions} & declared:
            found.add(f"{module} in {file.relative_to(folder.parent)}")
    return found


@pytest.mark.parametrize("folder", USES)
def test_imports_are_declared(folder: str) -> None:
    declared = names(PROJECT["dependencies"]).union(*(names(EXTRAS[extra]) for extra in USES[folder]))
    assert undeclared(ROOT / folder, declared) == set()


def test_imports_of_the_client_are_declared() -> None:
    declared = names(CLIENT["dependencies"])
    assert declared == {"httpx", "pydantic"}
    assert undeclared(ROOT / "clients/python/src/sparsewell_client", declared) == set()


def test_an_undeclared_import_is_found() -> None:
    assert any(each.startswith("pydantic in ") for each in undeclared(ROOT / "services", {"numpy"}))


def test_the_base_install_has_nothing_that_only_the_command_needs() -> None:
    base = names(PROJECT["dependencies"])
    assert not base & names(EXTRAS["cli"])
    installed = packages_distributions()
    used = {
        canonicalize_name(distribution)
        for folder in ("services", "query_api")
        for module, _ in imported(ROOT / folder)
        for distribution in installed.get(module, [module])
    }
    assert base - used == LOADED_BY_NAME
