"""Chapter titles made of phrases from the chapter."""

import pytest

from models.chapters.engine import Episode
from models.chapters.titles import has_same_stem, phrase_titles
from services.talk.model import UNKNOWN_TIME, Segments

CSS = (
    "Next up is CSS Grid. CSS Grid lays a page out in rows and columns, and we use CSS Grid for almost every layout. "
    "You name areas of the page and put each part there. "
)
BASH = (
    "Now to scripts. A shell script in Bash runs your build, and Bash expands what you write before it runs. A script "
    "that fails should stop, so set that at the top of each shell script. "
)


def offered(*chapters: str) -> list[list[str]]:
    text = "".join(chapters)
    bounds, at = [], 0
    for chapter in chapters:
        bounds.append((at, at + len(chapter)))
        at += len(chapter)
    segments = Segments(
        [start for start, _ in bounds], [UNKNOWN_TIME] * len(bounds), [UNKNOWN_TIME] * len(bounds), [UNKNOWN_TIME] * 2
    )
    return phrase_titles(Episode("", "", text, segments), bounds)


def test_titles_use_words_that_are_frequent_in_the_chapter() -> None:
    css, bash = offered(CSS, BASH)
    assert css[0].startswith("CSS Grid")
    assert "script" in bash[0].lower() or "Bash" in bash[0]


def test_no_phrase_begins_or_ends_with_a_stop_word() -> None:
    for title in (title for titles in offered(CSS, BASH) for title in titles[:-1]):
        for phrase in title.split(", "):
            assert phrase.lower().split()[0] not in ("the", "a", "and", "we", "of", "that")
            assert phrase.lower().split()[-1] not in ("the", "a", "and", "we", "of", "that")


def test_no_word_is_in_both_phrases_of_a_title() -> None:
    for title in (title for titles in offered(CSS, BASH) for title in titles[:-1]):
        words = title.lower().replace(",", "").split()
        assert len([word for word in words if word in ("css", "grid", "bash", "script", "shell")]) == len(
            {word for word in words if word in ("css", "grid", "bash", "script", "shell")}
        )


def test_other_languages_have_titles() -> None:
    wein = "Der Wein reift im Fass. Das Fass aus Eiche gibt dem Wein den Geschmack, und der Winzer prüft das Fass. " * 3
    zug = "Der Zug hält am Bahnhof. Am Bahnhof wartet der Schaffner, und der Zug fährt vom Bahnhof pünktlich ab. " * 3
    first, second = offered(wein, zug)
    assert "Wein" in first[0] or "Fass" in first[0]
    assert "Zug" in second[0] or "Bahnhof" in second[0]


def test_a_chapter_of_stop_words_has_its_first_words_as_title() -> None:
    assert offered(CSS, "so that was it then and we go on")[1] == ["So that was it then and"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("host", "hosting", True),
        ("branch", "branches", True),
        ("ip", "ips", True),
        ("a", "ape", False),
        ("boat", "bolt", False),
    ],
)
def test_forms_of_a_word_share_a_stem(one: str, other: str, same: bool) -> None:
    assert has_same_stem(one, other) is has_same_stem(other, one) is same


def test_a_title_does_not_repeat_a_word_in_another_form() -> None:
    text = "An antenna on the roof. The antennas catch the signal, and an antenna needs a cable. " * 4
    other = "We bake bread in the oven, and the baker sells it in the morning. " * 8
    offers, _ = offered(text, other)
    assert sum("antenna" in word for word in offers[0].lower().replace(",", "").split()) == 1
