"""Use the client's wheel in an empty virtual environment against a live API."""

import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.processes import ChildProcess

PACKAGE = Path(__file__).parents[3] / "clients" / "python"
PROGRAM = Path(__file__).parent / "wheel_program.py"

pytestmark = pytest.mark.slow


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=200, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, because setuptools writes build files beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    shutil.copytree(PACKAGE, sources, ignore=shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, sources)
    (built,) = folder.glob("*.whl")
    return built


def needed(*names: str) -> Iterator[Distribution]:
    """Yield the installed distributions and all their dependencies, without extras."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        yield found
        requirements = [Requirement(each) for each in found.requires or ()]
        waiting += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with the wheel, httpx, pydantic and their dependencies.

    The fixture copies the dependencies from this environment, so that the test needs no network.
    """
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False)
    interpreter = folder / "bin" / "python"
    site = Path(run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for each in needed("httpx", "pydantic"):
        for file in each.files or ():
            if ".." not in file.parts:  # commands belong in the environment's bin
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(file.locate()), target)
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-deps", "--no-index", wheel)
    return interpreter


def test_it_holds_the_client_and_no_more(wheel: Path) -> None:
    files = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert {file.parts[0] for file in files if "dist-info" not in file.parts[0]} == {"sparsewell_client"}
    sources = {file.relative_to(PACKAGE / "src") for file in (PACKAGE / "src" / "sparsewell_client").rglob("*.py")}
    assert sources | {Path("sparsewell_client/py.typed")} == {f for f in files if f.parts[0] == "sparsewell_client"}
    assert any(file.name == "LICENSE" for file in files)


def test_its_dependencies_suffice(python: Path) -> None:
    assert "No broken requirements" in run(sys.executable, "-m", "pip", "--python", python, "check")


def test_a_program_searches_with_nothing_else_installed(python: Path, api_url: str, worker: ChildProcess) -> None:
    assert run(python, "-I", PROGRAM, api_url) == "searched\n"
