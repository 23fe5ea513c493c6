"""Build an image's file system in a folder without a container engine, from the instructions of the Dockerfile.

Real parts: the build context after .dockerignore, every COPY, every RUN of the build stages (with absolute paths moved
below the folder), the variables of ENV and the installed packages. Simulated parts: the base image (the Python that
runs the tests replaces it, so pip may choose other wheels), users, and the isolation of a container.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.docker import dockerfile_text as dockerfile

# The product's directories in an image. A RUN or ENV that names such a directory means the copy below the folder.
OURS = re.compile(r"(?<![\w./-])/(opt/sparsewell|build)\b")


@dataclass(frozen=True)
class BareImage:
    """A stage built below `root`, and the environment of a process in it."""

    root: Path
    environment: dict[str, str]
    directory: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command with only the image's environment, in its working directory."""
        program = shutil.which(command[0], path=self.environment["PATH"]) or command[0]
        return subprocess.run(
            [program, *command[1:]],
            env=self.environment,
            cwd=self.directory,
            check=check,
            capture_output=True,
            text=True,
        )


def included(patterns: list[str], path: str) -> bool:
    """Return whether .dockerignore includes a path of the context. The last matching pattern decides; `!` includes.

    As in the engine, a pattern is anchored at the top and matches a path or any directory above it. `**/` stands for
    any number of directories.
    """
    keep = True
    parents = [path, *(str(parent) for parent in Path(path).parents)]
    for pattern in patterns:
        if any(_expression(pattern.removeprefix("!")).fullmatch(each) for each in parents):
            keep = pattern.startswith("!")
    return keep


def _expression(pattern: str) -> re.Pattern[str]:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.findall(r"\*\*/|\*\*|\*|\?|\[[^]]*\]|[^*?\[]+", pattern.rstrip("/"))
    return re.compile("".join(words.get(part) or (part if part[0] == "[" else re.escape(part)) for part in parts))


def ignore_patterns(file: Path) -> list[str]:
    """Return the patterns of a .dockerignore in their order."""
    return [line.strip() for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]


def context(repository: Path) -> list[str]:
    """Return the files that the engine would receive, relative to the top."""
    patterns = ignore_patterns(repository / ".dockerignore")
    allowed = {pattern.removeprefix("!").split("/")[0] for pattern in patterns if pattern.startswith("!")}
    files: list[str] = []
    for top in sorted(allowed):
        entry = repository / top
        found = [entry] if entry.is_file() else sorted(path for path in entry.rglob("*") if path.is_file())
        files += [str(path.relative_to(repository)) for path in found]
    return [path for path in files if included(patterns, path)]


def lay_out(repository: Path, file: Path, target: str, folder: Path) -> BareImage:
    """Build `target` below `folder`/root, and the stages that it copies from below `folder`/stages."""
    stages = dockerfile.read(file)
    sent = context(repository)
    root = folder / "root"
    wanted = [copy.stage for copy in _copies(stages, target) if copy.stage]
    for name in [*wanted, target]:
        root.mkdir(parents=True)
        directory = root
        for stage in dockerfile.ancestry(stages, name):
            environment = _moved(dockerfile.environment(stages, stage.name), root)
            for each in stage.instructions:
                if each.word == "WORKDIR":
                    directory = root / each.rest.lstrip("/")
                    directory.mkdir(parents=True, exist_ok=True)
                elif each.word == "COPY":
                    _copy(dockerfile.copy_of(each), repository, sent, root, directory, folder / "stages")
                elif each.word == "RUN" and not each.rest.startswith("groupadd"):  # no accounts on the host
                    _run(each.rest, root, directory, environment)
        if name != target:  # scripts contain the stage's path, so all stages share it
            (folder / "stages").mkdir(exist_ok=True)
            root.rename(folder / "stages" / name)
    final = _moved(dockerfile.environment(stages, target), root)
    return BareImage(root, final, directory)


def _copies(stages: dict[str, dockerfile.Stage], name: str) -> list[dockerfile.Copy]:
    return [dockerfile.copy_of(each) for stage in dockerfile.ancestry(stages, name) for each in stage.all("COPY")]


def _copy(copy: dockerfile.Copy, repository: Path, sent: list[str], root: Path, directory: Path, stages: Path) -> None:
    target = root / copy.target.lstrip("/") if copy.target.startswith("/") else directory / copy.target
    if copy.stage:
        shutil.copytree(stages / copy.stage / copy.sources[0].lstrip("/"), target, symlinks=True)
        return
    for source in copy.sources:
        matching = [path for path in sent if path == source or path.startswith(f"{source.rstrip('/')}/")]
        if not matching:
            raise FileNotFoundError(f"COPY {source}: not in the build context (see .dockerignore)")
        for path in matching:
            # COPY writes a file under its name, and of a directory only the contents.
            inner = Path(path).name if path == source else str(Path(path).relative_to(source))
            (target / inner).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / path, target / inner)


def _run(command: str, root: Path, directory: Path, environment: dict[str, str]) -> None:
    moved = OURS.sub(lambda match: str(root) + match[0], command)
    # In an image --no-cache-dir keeps the layer small. Here it would download every package again.
    moved = moved.replace(" --no-cache-dir", "")
    outside = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "HTTP", "http", "SSL_"))}
    # The environment of the tests replaces the base image: it has `python` and pip, which a bare Debian lacks.
    path = f"{Path(sys.prefix, 'bin')}:/usr/local/bin:/usr/bin:/bin"
    home = os.environ.get("HOME", "/tmp")  # noqa: S108  (where pip's settings and its cache are)
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", moved], cwd=directory, env=outside | environment | {"PATH": path, "HOME": home},
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"RUN failed with {done.returncode}: {moved}\n{done.stdout[-4000:]}")


def _moved(environment: dict[str, str], root: Path) -> dict[str, str]:
    """Return ENV with the product's paths moved. HOME is the folder's /tmp."""
    moved = {
        key: ":".join(OURS.sub(lambda match: str(root) + match[0], part) for part in value.split(":"))
        for key, value in environment.items()
    }
    return moved | ({"HOME": str(root / "tmp")} if "HOME" in moved else {})
