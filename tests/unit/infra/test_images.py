"""`make images` chooses an engine that works and gives it the arguments of the build."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra import images

REPOSITORY = Path(__file__).resolve().parents[3]


def write_engine(folder: Path, name: str, status: int) -> None:
    """Write an engine that records its words and ends with a status."""
    program = folder / name
    program.write_text(f'#!/bin/sh\necho "$@" >>"{folder}/words"\nexit {status}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_an_engine_that_does_not_work_is_not_chosen(tmp_path: Path) -> None:
    write_engine(tmp_path, "docker", 1)
    assert images.find_engine(str(tmp_path)) is None
    write_engine(tmp_path, "buildah", 0)
    assert images.find_engine(str(tmp_path)) == "buildah"
    write_engine(tmp_path, "podman", 0)
    assert images.find_engine(str(tmp_path)) == "podman"
    write_engine(tmp_path, "docker", 0)
    assert images.find_engine(str(tmp_path)) == "docker"


@pytest.mark.parametrize("target", ["api", "worker"])
def test_the_name_is_that_of_the_compose_file(target: str) -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    assert services[target]["image"] == images.image_name(target)


def test_the_environment_becomes_build_arguments() -> None:
    environment = {
        "PYTHON_IMAGE": "base:1",
        "PIP_INDEX_URL": "",
        "UV_DEFAULT_INDEX": "https://index.invalid/",
        "HOME": "/",
    }
    command = images.build_command("podman", "api", environment=environment, revision="abc", options=["--no-cache"])
    assert command[:4] == ["podman", "build", "--format", "docker"]
    given = [command[at + 1] for at, word in enumerate(command) if word == "--build-arg"]
    assert given == ["PYTHON_IMAGE=base:1", "UV_DEFAULT_INDEX=https://index.invalid/", "REVISION=abc"]
    assert command[-2:] == ["--no-cache", "."]


def test_the_dockerfile_takes_every_argument() -> None:
    text = (REPOSITORY / images.DOCKERFILE).read_text()
    for name in (*images.ARGUMENTS, "REVISION"):
        assert f"\nARG {name}" in text
    for target in images.TARGETS:
        assert f" AS {target}\n" in text


def test_each_target_is_built_with_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_engine(tmp_path, "podman", 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert images.main(["--", "--no-cache"]) == 0
    _, *built = (tmp_path / "words").read_text().splitlines()
    assert [line.split(" --target ")[1].split()[0] for line in built] == ["api", "worker"]
    assert all("--no-cache" in line for line in built)


def test_an_unknown_target_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert images.main(["apo"]) == 2
    assert "The targets are api, worker, worker-gpu." in capsys.readouterr().err


def test_without_an_engine_the_message_names_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert images.main([]) == 1
    assert "apt-get install podman" in capsys.readouterr().err


def test_a_build_that_fails_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "podman"
    program.write_text('#!/bin/sh\n[ "$1" = info ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert images.main(["api", "worker"]) == 1


def test_it_needs_no_installed_package() -> None:
    command = [sys.executable, "-S", "-c", "import infra.images"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
