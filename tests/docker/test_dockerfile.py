"""Check the Dockerfile and .dockerignore as text: lint, pinned versions, and the permitted contents of each image."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docker import build_context
from tests.docker import dockerfile_text as dockerfile

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "infra" / "docker" / "Dockerfile"
STAGES = dockerfile.read(DOCKERFILE)
IMAGES = ("api", "worker")

each_image = pytest.mark.parametrize("image", IMAGES)


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}")
    assert program, "hadolint is not installed: pip install -r requirements/dev.txt"
    return subprocess.run([program, "--no-color", str(file)], capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing() -> None:
    done = hadolint(DOCKERFILE)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM python\nRUN cd /tmp && pip install numpy\n")
    assert "DL3006" in hadolint(file).stdout


def test_the_base_is_pinned_to_a_full_version() -> None:
    parents = {stage.parent for stage in STAGES.values()} - set(STAGES)
    assert len(parents) == 1
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", parents.pop())


@each_image
def test_an_image_runs_as_a_number_that_is_not_root(image: str) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", dockerfile.last(STAGES, image, "USER").rest)


@each_image
def test_an_image_checks_its_own_health(image: str) -> None:
    assert dockerfile.last(STAGES, image, "HEALTHCHECK").rest.endswith(f'"infra.health", "{image}"]')


@each_image
def test_labels_name_the_version_and_the_licence(image: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    labels = dict(
        re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', dockerfile.last(STAGES, image, "LABEL").rest)
    )
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert labels["title"] == f"sparsewell-{image}"
    assert {"description", "revision"} <= set(labels)


@each_image
def test_an_image_takes_nothing_but_the_environments_of_its_build_stages(image: str) -> None:
    """The image therefore cannot contain the build context, pip's leftovers or an ONNX file of an earlier layer."""
    copies = [each for stage in dockerfile.ancestry(STAGES, image) for each in stage.all("COPY")]
    assert [dockerfile.copy_of(each) for each in copies] == [
        dockerfile.Copy(("/opt/sparsewell",), "/opt/sparsewell", f"{stage}")
        for stage in ("common-build", f"{image}-own")
    ]
    assert STAGES[f"{image}-own"].parent == f"{image}-build"


def locked(lock: str) -> set[str]:
    """Return the lines `package==version` of a lock file, with their markers."""
    lines = (REPOSITORY / "requirements" / f"{lock}.txt").read_text().splitlines()
    return {line.removesuffix(" \\") for line in lines if "==" in line}


@pytest.mark.parametrize(
    ("stage", "lock"), [("common", "common"), ("api", "base"), ("worker", "worker"), ("worker-gpu", "gpu")]
)
def test_dependencies_come_from_the_lock_file_with_hashes(stage: str, lock: str) -> None:
    installs = [each.rest for each in STAGES[f"{stage}-build"].all("RUN") if " install " in each.rest]
    assert f"--require-hashes -r requirements/{lock}.txt" in installs[0]
    assert "--only-binary :all:" in installs[0]
    assert all("--no-deps --no-build-isolation ." in each for each in installs[1:])
    assert len(installs) == (2 if stage in IMAGES else 1)


@pytest.mark.parametrize("lock", ["base", "worker"])
def test_the_common_packages_are_those_of_both_images(lock: str) -> None:
    """Another version would be in both the common layer and that of the image."""
    assert locked("common") <= locked(lock)


@pytest.mark.parametrize("lock", ["common", "base", "worker"])
def test_the_locks_of_the_images_leave_out_what_nothing_imports(lock: str) -> None:
    lines = (REPOSITORY / "requirements" / "images-without.in").read_text().splitlines()
    without = {line for line in lines if line and not line.startswith("#")}
    assert without
    assert not without & {each.partition("==")[0] for each in locked(lock)}


def test_the_image_for_gpus_is_the_workers_with_more_locked_packages() -> None:
    assert STAGES["worker-gpu"].parent == "worker"
    assert STAGES["worker-gpu-build"].parent == "worker-build"
    (copy,) = (dockerfile.copy_of(each) for each in STAGES["worker-gpu"].all("COPY"))
    assert copy == dockerfile.Copy(("/opt/sparsewell",), "/opt/sparsewell", "worker-gpu-build")
    versions = {name: {each.partition(" ")[0] for each in locked(name)} for name in ("gpu", "worker")}
    assert versions["worker"] <= versions["gpu"]


def test_the_build_without_a_target_is_the_api() -> None:
    assert list(STAGES)[-1] == "api"


def test_what_the_build_itself_runs_is_locked_too() -> None:
    (bill,) = (each.rest for each in STAGES["build"].all("RUN") if "sbom.txt" in each.rest)
    assert "--require-hashes" in bill
    assert "--only-binary :all:" in bill


@each_image
def test_an_image_says_which_commit_it_is_of(image: str) -> None:
    assert dockerfile.environment(STAGES, image)["SPARSEWELL_COMMIT"] == "unknown"


def test_the_api_has_no_code_of_models_or_indexer() -> None:
    sources = {source for each in STAGES["api-build"].all("COPY") for source in dockerfile.copy_of(each).sources}
    assert {"services", "query_api", "cli"} <= sources
    assert not {"indexer", "models", "requirements/worker.txt"} & sources


@each_image
def test_every_source_of_a_copy_reaches_the_engine(image: str) -> None:
    sent = build_context.context(REPOSITORY)
    for each in STAGES[f"{image}-build"].all("COPY"):
        for source in dockerfile.copy_of(each).sources:
            assert any(path == source or path.startswith(f"{source}/") for path in sent), source


def test_the_context_holds_no_more_than_the_images_need() -> None:
    sent = build_context.context(REPOSITORY)
    assert not [path for path in sent if "__pycache__" in path or path.endswith((".pyc", ".pt"))]
    # `sparsewell encoders verify` in the worker's image reads the moments.
    assert {Path(path).name for path in sent if path.endswith(".safetensors")} == {
        "dense_query_table.safetensors",
        "passage_moments.safetensors",
    }
    assert not [
        path for path in sent if path.startswith(("tests", "docs", ".git", ".venv", "benchmarks", "models/export"))
    ]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("README.md", True),
        ("services/settings.py", True),
        ("models/weights/standin/manifest.json", True),
        ("models/export/onnx_graph.py", False),
        ("services/__pycache__/settings.cpython-312.pyc", False),
        ("requirements/dev.txt", False),
        (".env", False),
        ("tests/conftest.py", False),
    ],
)
def test_dockerignore_decides(path: str, sent: bool) -> None:
    patterns = build_context.ignore_patterns(REPOSITORY / ".dockerignore")
    assert build_context.included(patterns, path) is sent
