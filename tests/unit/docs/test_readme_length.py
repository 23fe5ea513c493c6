"""Keep the README short: details belong on a page of docs/."""

from pathlib import Path

README = (Path(__file__).parents[3] / "README.md").read_text()


def test_the_readme_has_at_most_150_lines_and_1300_words() -> None:
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1300
