"""Links and navigation of the documentation site."""

from pathlib import Path

import pytest

from infra import docs_site


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "README.md": "[start](docs/start.md#here) ![picture](docs/a.png)",
        "docs/start.md": "# Here\n[code](../code.py) [more](../more/README.md) [web](https://example.org) [up](#here)",
        "docs/a.png": "",
        "docs/not-linked.png": "",
        "code.py": "",
        "more/README.md": "[back](../docs/start.md) `[no](link.md)`\n\n```json\n[[1]](nothing.md)\n```\n",
        "mkdocs.yml": "nav:\n  - Start:\n      - README.md\n      - docs/start.md\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_site_has_its_pages_and_the_linked_files(root: Path) -> None:
    files, broken = docs_site.collect_files(root)
    assert {str(file) for file in files} == {"README.md", "docs/start.md", "docs/a.png", "code.py", "more/README.md"}
    assert broken == []


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("nothing.md", "does not exist."),
        ("a.jpg", "does not exist."),
        ("../more/", "is a directory; link to a file in it."),
        ("../../outside.md", "leads out of the repository."),
        ("/docs/start.md", "leads out of the repository."),
    ],
)
def test_a_broken_link_is_reported_with_its_place(root: Path, link: str, reason: str) -> None:
    (root / "docs" / "start.md").write_text(f"# Here\n\n[wrong]({link})\n")
    assert docs_site.collect_files(root)[1] == [f"docs/start.md:3: {link} {reason}"]
    assert docs_site.build_site(root) == 1


def test_a_page_missing_from_the_navigation_is_reported(root: Path) -> None:
    (root / "docs" / "decisions").mkdir()
    (root / "docs" / "decisions" / "0001-why.md").write_text("# Why\n")
    assert docs_site.find_missing_pages(root) == []
    (root / "docs" / "forgotten.md").write_text("# Forgotten\n")
    assert docs_site.find_missing_pages(root) == ["docs/forgotten.md is not in the navigation of mkdocs.yml."]


def test_the_committed_documents_have_no_broken_links() -> None:
    assert docs_site.collect_files(docs_site.ROOT)[1] + docs_site.find_missing_pages(docs_site.ROOT) == []
