"""Content and version of the two distributions."""

import tomllib
from pathlib import Path

from setuptools import find_namespace_packages

ROOT = Path(__file__).parents[3]
SERVER = tomllib.loads((ROOT / "pyproject.toml").read_text())
CLIENT = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())


def test_the_server_has_no_examples_benchmarks_tests_or_client() -> None:
    found = find_namespace_packages(str(ROOT), **SERVER["tool"]["setuptools"]["packages"]["find"])
    assert not [name for name in found if name.startswith("infra.helm")]
    assert {name.partition(".")[0] for name in found} == {"cli", "indexer", "infra", "models", "query_api", "services"}


def test_package_indexes_refuse_the_server() -> None:
    assert "Private :: Do Not Upload" in SERVER["project"]["classifiers"]
    assert "Private :: Do Not Upload" not in CLIENT["project"]["classifiers"]


def test_server_and_client_have_the_same_version_and_licence() -> None:
    for member in ("version", "license", "requires-python"):
        assert SERVER["project"][member] == CLIENT["project"][member]
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "clients/python/LICENSE").read_bytes()
