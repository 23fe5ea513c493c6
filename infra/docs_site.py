"""Build of the documentation site.

    python -m infra.docs_site

The site has the layout of the repository, so a relative link works in both. The build copies every page of `docs/`, the
README and each linked file to `build/docs`, and Zensical makes `build/site` from the copy. A broken link fails the
build.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SCHEME = re.compile(r"[a-z]+:")


def iter_links(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and path of each relative link to a file, without its anchor."""
    prose = _CODE.sub(_blank, _FENCE.sub(_blank, text))
    for match in _LINK.finditer(prose):
        path = match[1].partition("#")[0]
        if path and not _SCHEME.match(path):
            yield prose.count("\n", 0, match.start()) + 1, path


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def collect_files(root: Path) -> tuple[set[Path], list[str]]:
    """Return the site's files, relative to `root`, and a sentence for each broken link.

    A link must lead to a file below `root`: the site has no listings of directories.
    """
    queue = [Path("README.md"), *(page.relative_to(root) for page in sorted((root / "docs").rglob("*.md")))]
    files, broken = set(queue), list[str]()
    while queue:
        page = queue.pop()
        for line, link in iter_links((root / page).read_text(encoding="utf-8")):
            target = (root / page.parent / link).resolve()
            place = f"{page}:{line}: {link}"
            if link.startswith("/") or not target.is_relative_to(root):
                broken.append(f"{place} leads out of the repository.")
            elif target.is_dir():
                broken.append(f"{place} is a directory; link to a file in it.")
            elif not target.is_file():
                broken.append(f"{place} does not exist.")
            elif (file := target.relative_to(root)) not in files:
                files.add(file)
                if file.suffix == ".md":
                    queue.append(file)
    return files, broken


def find_missing_pages(root: Path) -> list[str]:
    """Return a sentence for each page of `docs/` that the navigation lacks; decisions are listed by their index."""
    listed = set(re.findall(r"\S+\.md$", (root / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    pages = (page.relative_to(root) for page in sorted((root / "docs").rglob("*.md")))
    return [
        f"{page} is not in the navigation of mkdocs.yml."
        for page in pages
        if str(page) not in listed and "decisions" not in page.parts
    ]


def build_site(root: Path = ROOT) -> int:
    """Build the site; return the exit status."""
    files, problems = collect_files(root)
    problems += find_missing_pages(root)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    source = root / "build" / "docs"
    shutil.rmtree(source, ignore_errors=True)
    for file in files:
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, source / file)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(root / "mkdocs.yml")]
    return subprocess.run(command, check=False, cwd=root).returncode


if __name__ == "__main__":
    sys.exit(build_site())
