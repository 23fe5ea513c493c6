"""Build the container images with the engine of this machine: docker, podman or buildah.

    python3 -m infra.images [TARGET ...] [-- OPTION ...]      # make images TARGETS="api worker" OPTIONS="..."

The targets are stages of infra/docker/Dockerfile (default: api and worker). The options go to the engine's build
command. PYTHON_IMAGE (another base image), PIP_INDEX_URL and UV_DEFAULT_INDEX (another package index) of the
environment become build arguments. This module needs no installed package.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCKERFILE = Path("infra", "docker", "Dockerfile")
TARGETS = ("api", "worker", "worker-gpu")
DEFAULT_TARGETS = ("api", "worker")
# The words after which an engine takes a Dockerfile. The format of OCI has no health check, so podman and buildah get
# the option for Docker's.
BUILD_WORDS: dict[str, tuple[str, ...]] = {
    "docker": ("build",),
    "podman": ("build", "--format", "docker"),
    "buildah": ("bud", "--layers", "--format", "docker"),
}
ARGUMENTS = ("PYTHON_IMAGE", "PIP_INDEX_URL", "UV_DEFAULT_INDEX")
ADVICE = (
    "No container engine works here. Start Docker, or install podman or buildah (Debian or Ubuntu: "
    "sudo apt-get install podman)."
)


def find_engine(path: str | None = None) -> str | None:
    """Return the first engine that is on `path` (default: PATH) and works, or None.

    The program `docker` without its daemon builds nothing.
    """
    for name in BUILD_WORDS:
        if program := shutil.which(name, path=path):
            done = subprocess.run([program, "info"], capture_output=True, check=False)
            if done.returncode == 0:
                return name
    return None


def image_name(target: str, repository: Path = REPOSITORY) -> str:
    """Return the name and tag that docker-compose.yml gives the image of a target."""
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    return f"sparsewell-{target}:{version}"


def build_command(
    engine: str, target: str, *, environment: Mapping[str, str], revision: str, options: Sequence[str] = ()
) -> list[str]:
    """Return the command that builds a target from the top of the repository."""
    arguments = {name: environment[name] for name in ARGUMENTS if environment.get(name)} | {"REVISION": revision}
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    target_words = ["--target", target, "--tag", image_name(target), "--file", str(DOCKERFILE)]
    return [engine, *BUILD_WORDS[engine], *given, *target_words, *options, "."]


def read_revision() -> str:
    """Return the commit of the checkout, or `unknown` outside of one."""
    if not shutil.which("git"):
        return "unknown"
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def main(arguments: Sequence[str]) -> int:
    """Build the named targets. Return 0, 1 if no engine works or a build fails, 2 for an unknown target."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    targets, options = words[:end] or list(DEFAULT_TARGETS), words[end + 1 :]
    if unknown := [target for target in targets if target not in TARGETS]:
        print(f"Unknown target {', '.join(unknown)}. The targets are {', '.join(TARGETS)}.", file=sys.stderr)
        return 2
    engine = find_engine()
    if engine is None:
        print(ADVICE, file=sys.stderr)
        return 1
    revision = read_revision()
    for target in targets:
        print(f"Building {image_name(target)} with {engine}.", flush=True)
        command = build_command(engine, target, environment=os.environ, revision=revision, options=options)
        if subprocess.run(command, cwd=REPOSITORY, check=False).returncode:
            print(f"{engine} could not build {image_name(target)}; the reason is above.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
