"""Limits of the product's code."""

from itertools import pairwise
from pathlib import Path

import pytest

from infra import structure
from infra.structure import (
    SHORT_MODULES,
    build_import_graph,
    find_breaches,
    find_import_cycles,
    find_uneven_modules,
    find_wide_folders,
    list_product_files,
)


def product(root: Path, **files: str) -> Path:
    """Write modules, named `services__a` for services/a.py, with an `__init__.py` in each folder."""
    for name, text in files.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.relative_to(root).parents[:-1]:
            (root / folder / "__init__.py").touch()
    return root


def cycles(root: Path) -> list[list[str]]:
    return find_import_cycles(build_import_graph(list_product_files(root, ".py")))


@pytest.mark.parametrize(
    "text",
    [
        "import services.a",
        "from services import a",
        "from services.a import name",
        "from . import a",
        "from .a import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from services.a import Name",
        "def late():\n    from services.a import name",
    ],
)
def test_every_kind_of_import_counts_in_a_cycle(tmp_path: Path, text: str) -> None:
    product(tmp_path, services__a="from services.b import x", services__b=text)
    assert [set(chain) for chain in cycles(tmp_path)] == [{"services.a", "services.b"}]


def test_a_chain_has_the_order_of_its_imports(tmp_path: Path) -> None:
    product(
        tmp_path,
        services__a="from services.b import x",
        services__b="from indexer.c import x",
        indexer__c="import services.a",
        indexer__d="import services.a",
    )
    (chain,) = cycles(tmp_path)
    assert chain[0] == chain[-1]
    assert set(pairwise(chain)) == {
        ("services.a", "services.b"),
        ("services.b", "indexer.c"),
        ("indexer.c", "services.a"),
    }


def test_every_cycle_is_reported(tmp_path: Path) -> None:
    product(
        tmp_path,
        services__a="import services.b",
        services__b="import services.a\nimport services.c",
        services__c="import services.d",
        services__d="import services.c",
    )
    assert {frozenset(chain) for chain in cycles(tmp_path)} == {
        frozenset({"services.a", "services.b"}),
        frozenset({"services.c", "services.d"}),
    }


def test_a_package_counts_where_a_name_is_taken_from_it(tmp_path: Path) -> None:
    product(tmp_path, services__deep__a="import json", services__b="from services.deep import a")
    assert cycles(tmp_path) == []
    (tmp_path / "services/deep/__init__.py").write_text("from services.deep.a import name")
    assert cycles(tmp_path) == [], "a is imported by its package, and not the other way round"
    (tmp_path / "services/deep/a.py").write_text("from services.deep import name")
    assert [set(chain) for chain in cycles(tmp_path)] == [{"services.deep", "services.deep.a"}]


def test_imports_of_other_packages_do_not_matter(tmp_path: Path) -> None:
    product(tmp_path, services__a="import json\nfrom fastapi import FastAPI\nfrom services import __name__ as x")
    assert cycles(tmp_path) == []


def test_a_wide_folder_is_told(tmp_path: Path) -> None:
    product(tmp_path, services__a="", services__b="", services__deep__c="")
    page = tmp_path / "services/page.js"
    page.touch()
    files = [*list_product_files(tmp_path, ".py"), *list_product_files(tmp_path, ".js")]
    assert find_wide_folders(files, 2) == {tmp_path / "services": 3}, "neither __init__.py nor a deeper folder counts"
    assert find_wide_folders(files, 3) == {}


def test_short_and_long_modules_are_found(tmp_path: Path) -> None:
    product(tmp_path, services__short="x\n", services__exempt="x\n", services__long="x\n" * 5, services__empty="")
    product(tmp_path, services__least="x\n" * 2, services__most="x\n" * 4)
    folder = tmp_path / "services"
    (folder / "__init__.py").write_text("x\n")
    found = find_uneven_modules(list_product_files(tmp_path, ".py"), 2, 4, [folder / "exempt.py"])
    assert found == {folder / "long.py": 5, folder / "short.py": 1}
    assert find_uneven_modules([folder / "long.py"], 2, 4, [folder / "long.py"]), "no module may be too long"


def test_examples_may_be_short(tmp_path: Path) -> None:
    product(tmp_path, examples__a="x = 1\n")
    assert list(find_breaches(tmp_path)) == []


def test_each_exception_is_a_short_module() -> None:
    root = Path(structure.__file__).parents[1]
    modules = [root / name for name in SHORT_MODULES]
    assert set(find_uneven_modules(modules, structure.MIN_LINES, structure.MAX_LINES, [])) == set(modules)


def test_a_client_within_a_project_of_its_own_counts(tmp_path: Path) -> None:
    folder = tmp_path / "clients/python/src/package"
    folder.mkdir(parents=True)
    for name, text in {"__init__": "", "a": "import package.b", "b": "import package.a"}.items():
        (folder / f"{name}.py").write_text(text)
    (tmp_path / "clients/python/tests").mkdir()
    (tmp_path / "clients/python/tests/test_a.py").touch()
    assert len(list_product_files(tmp_path, ".py")) == 3, "tests are no product"
    assert [set(chain) for chain in cycles(tmp_path)] == [{"package.a", "package.b"}]


def test_each_breach_is_a_line(tmp_path: Path) -> None:
    product(tmp_path, services__a="import services.b", services__b="import services.a", services__c="")
    assert list(find_breaches(tmp_path, shortest=1)) == ["Import cycle: services.a -> services.b -> services.a."]
    (tmp_path / "services/c.py").write_text("x = 1\n" * 3)
    assert list(find_breaches(tmp_path, shortest=1, longest=2, widest=2, max_files=3)) == [
        "services/c.py has 3 lines; a module has 1 to 2.",
        "services has 3 modules; a folder has at most 2.",
        "Import cycle: services.a -> services.b -> services.a.",
        "The server has 4 Python files; it has at most 3.",
    ]


def test_the_command_prints_breaches_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    product(tmp_path, infra__structure="import infra.structure\n" * 80)
    monkeypatch.setattr(structure, "__file__", str(tmp_path / "infra/structure.py"))
    with pytest.raises(SystemExit) as ended:
        structure.main()
    assert (ended.value.code, capsys.readouterr().out) == (
        1,
        "Import cycle: infra.structure -> infra.structure.\n",
    )
    product(tmp_path, infra__structure="import ast\n")
    with pytest.raises(SystemExit) as ended:
        structure.main()
    assert (ended.value.code, capsys.readouterr().out) == (
        1,
        "infra/structure.py has 1 lines; a module has 80 to 400.\n",
    )
    product(tmp_path, infra__structure="import ast\n" * 80)
    with pytest.raises(SystemExit) as ended:
        structure.main()
    assert ended.value.code == 0
