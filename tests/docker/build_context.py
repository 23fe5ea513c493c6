"""The build context: which files of the repository .dockerignore lets the engine receive."""

import re
from pathlib import Path


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
