"""Limits of the product's code: lengths of modules, folder widths, import cycles, and the number of modules.

    python -m infra.structure

Four limits keep the code easy to scan:

- a Python module has `MIN_LINES` to `MAX_LINES` lines. Empty modules, `__init__.py`, the examples and `SHORT_MODULES`
  are not checked;
- a folder has at most `MAX_FOLDER_FILES` modules (`.py`, and `.js` for the page; `__init__.py` is not counted);
- no module imports itself through others. Imports under TYPE_CHECKING and inside functions count as well;
- the product has at most `MAX_PRODUCT_FILES` Python files.

Each breach is printed on a separate line, and the exit status is 1.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = ("services", "indexer", "query_api", "models", "infra", "cli", "benchmarks", "examples", "clients")
MAX_FOLDER_FILES = 22
# Files of the server, without benchmarks, examples and the client.
MAX_PRODUCT_FILES = 330
MIN_LINES, MAX_LINES = 80, 400
# Modules that may be shorter than MIN_LINES.
SHORT_MODULES = frozenset(
    {
        # This command of the repository stays outside the published package, where no module could hold it.
        "clients/python/generate_sync.py",
        # Python runs the package `infra.helm` by this file. Its commands are in the modules beside it.
        "infra/helm/__main__.py",
        # The API, the workers and the commands all repeat calls, so none of their modules can hold it.
        "services/retry.py",
        # Fits and trainings report to it. A training module would need PyTorch for it.
        "models/progress.py",
        # The API and the workers share the list of workers in Redis.
        "services/queue/worker_registry.py",
    }
)
_INIT = "__init__.py"
_EXAMPLES = "examples"
_BESIDE_THE_SERVER = frozenset({_EXAMPLES, "benchmarks", "clients"})
_SKIPPED = frozenset({"__pycache__", "node_modules", "build", "dist", "tests"})

Graph = Mapping[str, frozenset[str]]


def list_product_files(root: Path, suffix: str, packages: Iterable[str] = PACKAGES) -> list[Path]:
    """Return the product's files with this suffix, sorted, without built files and tests inside a package."""
    return sorted(
        path
        for package in packages
        for path in (root / package).rglob(f"*{suffix}")
        if not _SKIPPED.intersection(path.relative_to(root).parts)
    )


def find_wide_folders(paths: Iterable[Path], limit: int = MAX_FOLDER_FILES) -> dict[Path, int]:
    """Return the folders that hold more than `limit` of these files, with their number of files."""
    widths = Counter(path.parent for path in paths if path.name != _INIT)
    return {folder: count for folder, count in sorted(widths.items()) if count > limit}


def find_uneven_modules(paths: Iterable[Path], shortest: int, longest: int, short: Iterable[Path]) -> dict[Path, int]:
    """Return the modules below `shortest` lines, unless they are in `short`, or above `longest`, with their lines."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths if path.name != _INIT}
    exempt = frozenset(short)
    return {
        path: lines
        for path, lines in lengths.items()
        if lines > longest or (0 < lines < shortest and path not in exempt)
    }


def build_import_graph(paths: Iterable[Path]) -> Graph:
    """Return the imports between these modules, by dotted names.

    A package stands for its `__init__.py`. It counts as imported only where one of its own names is taken, not where
    Python runs it before a module of the package.
    """
    modules = {_module_name(path): path for path in paths}
    return {name: frozenset(_imported(name, path, modules)) for name, path in modules.items()}


def _module_name(path: Path) -> str:
    """Return the dotted name, counted from the outermost folder that is a package."""
    names = [] if path.name == _INIT else [path.stem]
    for folder in path.parents:
        if not (folder / _INIT).is_file():
            break
        names.append(folder.name)
    return ".".join(reversed(names))


def _imported(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    package = name.split(".") if path.name == _INIT else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*parent, *filter(None, [node.module])])
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                if submodule in modules:
                    yield submodule
                elif source in modules:
                    yield source


def find_import_cycles(graph: Graph) -> list[list[str]]:
    """Return chains of imports that end where they began, such as a, b, a.

    One chain is found at a time and its last import is left out of the search for the next one, so the chains together
    hold every group of modules that import each other, and breaking all of them leaves no cycle.
    """
    remaining = {module: set(imported) for module, imported in graph.items()}
    chains = []
    while True:
        try:
            TopologicalSorter(remaining).prepare()
        except CycleError as error:
            chain = error.args[1][::-1]  # graphlib lists the imported module before its importer
            chains.append(chain)
            remaining[chain[-2]].discard(chain[-1])
        else:
            return chains


def find_breaches(
    root: Path,
    *,
    shortest: int = MIN_LINES,
    longest: int = MAX_LINES,
    widest: int = MAX_FOLDER_FILES,
    max_files: int = MAX_PRODUCT_FILES,
) -> Iterator[str]:
    """Yield a line for each limit that the product below `root` breaks."""
    python = list_product_files(root, ".py")
    checked = (path for path in python if path.relative_to(root).parts[0] != _EXAMPLES)
    short = (root / name for name in SHORT_MODULES)
    for path, lines in find_uneven_modules(checked, shortest, longest, short).items():
        yield f"{path.relative_to(root)} has {lines} lines; a module has {shortest} to {longest}."
    for folder, count in find_wide_folders([*python, *list_product_files(root, ".js")], widest).items():
        yield f"{folder.relative_to(root)} has {count} modules; a folder has at most {widest}."
    for chain in find_import_cycles(build_import_graph(python)):
        yield f"Import cycle: {' -> '.join(chain)}."
    server = sum(path.relative_to(root).parts[0] not in _BESIDE_THE_SERVER for path in python)
    if server > max_files:
        yield f"The server has {server} Python files; it has at most {max_files}."


def main() -> None:
    """Print the breaches of this checkout; exit with status 1 if there are any."""
    breaches = list(find_breaches(Path(__file__).parents[1]))
    for line in breaches:
        print(line)
    sys.exit(1 if breaches else 0)


if __name__ == "__main__":
    main()
