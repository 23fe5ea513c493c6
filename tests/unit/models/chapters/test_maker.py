"""Acceptance of proposals: ordered chapters that cover the talk, distinct titles, counted and documented repairs."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.chapters.engine import Episode, ProposedChapter
from models.chapters.maker import MAX_CHAPTERS, MIN_CHAPTER_WORDS, REPAIR_SENTENCES, accept_proposals
from models.chapters.titles import MAX_TITLE_CHARACTERS, TitleVocabulary, clean_title, phrase_titles
from services.talk.model import UNKNOWN_TIME, Chapter, Repair, Segments
from tests.unit.models.chapters.episodes import talk

SOIL = ["The soil of a vineyard holds water for the roots of the vines in a dry summer of the south."] * 6
RAIN = ["Clouds from the sea bring rain to the mountains and a shower of hail to the fields below them."] * 6
EPISODE = talk([*SOIL, *RAIN])
HALF = EPISODE.segments.offsets[6]


def codes(repairs: Sequence[Repair]) -> dict[str, int]:
    return {repair.code: repair.count for repair in repairs}


def spans(chapters: Sequence[Chapter]) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in chapters]


def test_a_good_proposal_is_not_changed() -> None:
    chapters, repairs = accept_proposals(
        EPISODE, [ProposedChapter(0, "Soil"), ProposedChapter(HALF, "Rain and hail")], phrase_titles
    )
    assert spans(chapters) == [(0, HALF), (HALF, len(EPISODE.text))]
    assert [one.title for one in chapters] == ["Soil", "Rain and hail"]
    assert repairs == []


def test_titles_for_an_engine_without_titles_are_not_a_repair() -> None:
    chapters, repairs = accept_proposals(EPISODE, [ProposedChapter(0), ProposedChapter(HALF)], phrase_titles)
    assert repairs == []
    first, second = (one.title.lower() for one in chapters)
    assert first != second
    assert any(word in first for word in ("soil", "vine", "roots", "water"))
    assert any(word in second for word in ("clouds", "rain", "hail", "mountains"))


@pytest.mark.parametrize(
    ("proposals", "code"),
    [
        ([ProposedChapter(HALF, "Rain"), ProposedChapter(0, "Soil")], "chapters_unordered"),
        ([ProposedChapter(0, "Soil"), ProposedChapter(HALF + 3, "Rain")], "chapters_snapped"),
        ([ProposedChapter(0, "Soil"), ProposedChapter(HALF - 3, "Rain")], "chapters_snapped"),
        (
            [ProposedChapter(0, "Soil"), ProposedChapter(HALF, "Rain"), ProposedChapter(HALF, "Hail")],
            "chapters_at_one_place",
        ),
        (
            [ProposedChapter(0, "Soil"), ProposedChapter(HALF, ""), ProposedChapter(HALF, "Rain")],
            "chapters_at_one_place",
        ),
        (
            [ProposedChapter(0, "Soil"), ProposedChapter(HALF, "Rain"), ProposedChapter(10**9, "Rain")],
            "chapters_out_of_text",
        ),
        (
            [ProposedChapter(-1, "Soil"), ProposedChapter(0, "Soil"), ProposedChapter(HALF, "Rain")],
            "chapters_out_of_text",
        ),
        ([ProposedChapter(EPISODE.segments.offsets[1], "Soil"), ProposedChapter(HALF, "Rain")], "first_chapter_moved"),
    ],
)
def test_starts_are_repaired_and_counted(proposals: list[ProposedChapter], code: str) -> None:
    chapters, repairs = accept_proposals(EPISODE, proposals, phrase_titles)
    assert spans(chapters) == [(0, HALF), (HALF, len(EPISODE.text))]
    assert [one.title for one in chapters] == ["Soil", "Rain"]
    assert codes(repairs) == {code: 1}


def test_a_long_beginning_without_a_chapter_becomes_one() -> None:
    chapters, repairs = accept_proposals(EPISODE, [ProposedChapter(HALF, "Rain")], phrase_titles)
    assert spans(chapters) == [(0, HALF), (HALF, len(EPISODE.text))]
    assert chapters[1].title == "Rain"
    assert codes(repairs) == {"first_chapter_added": 1, "titles_empty": 1}


@pytest.mark.parametrize(
    ("title", "code"),
    [
        ("", "titles_empty"),
        (" \n\x00 ", "titles_empty"),
        ("SOIL", "titles_repeated"),
        ("Quantum computers", "titles_invented"),
        ("The soil of a vineyard", "titles_invented"),  # the phrase is in the other chapter
    ],
)
def test_an_invalid_title_is_replaced_by_words_of_the_chapter(title: str, code: str) -> None:
    chapters, repairs = accept_proposals(
        EPISODE, [ProposedChapter(0, "Soil"), ProposedChapter(HALF, title)], phrase_titles
    )
    assert codes(repairs) == {code: 1}
    said = {word.strip(".").lower() for word in RAIN[0].split()}
    assert {word.strip(",").lower() for word in chapters[1].title.split()} <= said


def test_a_trained_generator_may_use_new_words() -> None:
    proposals = [ProposedChapter(0, "Soil"), ProposedChapter(HALF, "Quantum computers")]
    chapters, repairs = accept_proposals(EPISODE, proposals, phrase_titles, new_words=True)
    assert [chapter.title for chapter in chapters] == ["Soil", "Quantum computers"]
    assert repairs == []


def test_a_title_may_use_inflected_words_and_the_description() -> None:
    episode = Episode("Farming", "With guests from Portugal", EPISODE.text, EPISODE.segments)
    chapters, repairs = accept_proposals(
        episode, [ProposedChapter(0, "Portuguese guest"), ProposedChapter(HALF, "Raining")], phrase_titles
    )
    assert [one.title for one in chapters] == ["Portuguese guest", "Raining"]
    assert repairs == []


@pytest.mark.parametrize(
    ("said", "title", "holds"),
    [
        ("我们今天谈谈葡萄酒的历史，还有土壤。", "葡萄酒历史", True),
        ("我们今天谈谈葡萄酒的历史，还有土壤。", "量子计算机", False),
        ("今日はワインの歴史について話します。", "ワインの歴史", True),
        ("Сегодня мы говорим о винограднике и о почве.", "Виноградники", True),
        ("Сегодня мы говорим о винограднике и о почве.", "Квантовые компьютеры", False),
    ],
)
def test_titles_are_checked_in_every_script(said: str, title: str, holds: bool) -> None:
    assert TitleVocabulary(talk([said], title=""), 0, len(said)).holds(title) is holds


def test_long_titles_are_cut_between_words() -> None:
    title = "The rain " + "and the hail " * 20
    chapters, repairs = accept_proposals(
        EPISODE, [ProposedChapter(0, "Soil"), ProposedChapter(HALF, title)], phrase_titles
    )
    assert codes(repairs) == {"titles_cut": 1}
    assert len(chapters[1].title) <= MAX_TITLE_CHARACTERS
    assert (
        chapters[1].title.endswith("hail…") or chapters[1].title.endswith("the…") or chapters[1].title.endswith("and…")
    )


def test_a_short_chapter_is_merged_into_the_previous_one() -> None:
    episode = talk([*SOIL, "And so.", *RAIN])
    tiny, rest = episode.segments.offsets[6:8]
    chapters, repairs = accept_proposals(
        episode, [ProposedChapter(0, "Soil"), ProposedChapter(tiny, "So"), ProposedChapter(rest, "Rain")], phrase_titles
    )
    assert spans(chapters) == [(0, rest), (rest, len(episode.text))]
    assert codes(repairs) == {"chapters_too_short": 1}


def test_a_short_first_chapter_takes_in_the_next() -> None:
    episode = talk(["Hello there.", *SOIL])
    chapters, repairs = accept_proposals(episode, [ProposedChapter(0, ""), ProposedChapter(13, "Soil")], phrase_titles)
    assert [(one.start, one.title) for one in chapters] == [(0, "Soil")]
    assert codes(repairs) == {"chapters_too_short": 1}


def test_a_short_talk_is_one_chapter() -> None:
    episode = talk(["Hello there."])
    chapters, repairs = accept_proposals(episode, [ProposedChapter(0)], phrase_titles)
    assert spans(chapters) == [(0, len(episode.text))]
    assert chapters[0].title == "Hello there"
    assert repairs == []


def test_chapters_are_limited_like_those_of_producers() -> None:
    episode = talk(SOIL[:1] * (MAX_CHAPTERS + 5))
    proposals = [ProposedChapter(start) for start in episode.segments.offsets]
    chapters, repairs = accept_proposals(episode, proposals, lambda _, bounds: [[] for _ in bounds])
    assert len(chapters) == MAX_CHAPTERS
    assert codes(repairs) == {"chapters_too_many": 5}
    assert chapters[-1].end == len(episode.text)


def test_chapter_times_come_from_segments() -> None:
    unknown = [UNKNOWN_TIME] * 12
    starts = [i * 10_000 for i in range(12)]
    segments = Segments(EPISODE.segments.offsets, starts, [*unknown[:11], 118_500], unknown)
    episode = Episode("", "", EPISODE.text, segments)
    chapters, _ = accept_proposals(episode, [ProposedChapter(0, "Soil"), ProposedChapter(HALF, "Rain")], phrase_titles)
    assert [(one.start_time, one.end_time) for one in chapters] == [(0.0, 60.0), (60.0, 118.5)]


@pytest.mark.parametrize("text", ["", " \n "])
def test_a_talk_without_words_has_no_chapters(text: str) -> None:
    episode = Episode("Title", "", text, Segments((0,), (UNKNOWN_TIME,), (UNKNOWN_TIME,), (UNKNOWN_TIME,)))
    assert accept_proposals(episode, [ProposedChapter(0, "Title")], phrase_titles) == ([], [])


def test_no_proposals_are_no_chapters() -> None:
    assert accept_proposals(EPISODE, [], phrase_titles) == ([], [])


SENTENCE = st.lists(
    st.sampled_from(["rain", "Soil", "and", "C++", "的", "?", "wine", "\x07", "7"]), min_size=1, max_size=30
)
PROPOSAL = st.builds(
    ProposedChapter,
    st.integers(-50, 3000),
    st.one_of(st.text(max_size=200), st.sampled_from(["", "Rain", "rain", "Soil and wine", "Wine " * 60])),
)


@given(st.lists(SENTENCE.map(" ".join), min_size=1, max_size=40), st.lists(PROPOSAL, max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_proposals_give_valid_chapters(sentences: list[str], proposals: list[ProposedChapter]) -> None:
    episode = talk(sentences)
    chapters, repairs = accept_proposals(episode, proposals, phrase_titles)
    if not proposals or not episode.text.strip():
        assert chapters == []
        return
    assert chapters[0].start == 0
    assert chapters[-1].end == len(episode.text)
    assert all(a.end == b.start for a, b in itertools.pairwise(chapters))
    assert {one.start for one in chapters} <= set(episode.segments.offsets)
    titles = [one.title for one in chapters]
    assert len({title.casefold() for title in titles}) == len(titles)
    for title in titles:
        assert title
        assert title == clean_title(title)
        assert len(title) <= MAX_TITLE_CHARACTERS
    if len(chapters) > 1:
        assert all(len(episode.text[one.start : one.end].split()) >= MIN_CHAPTER_WORDS for one in chapters)
    assert all(repair.count > 0 and repair.detail for repair in repairs)


def test_a_script_without_spaces_has_words() -> None:
    said = "我们今天谈谈怎样在海上修理一条旧船的绳子和帆" * 8
    text = said * 3
    starts = [0, len(said), 2 * len(said)]
    segments = Segments(starts, [0, 60_000, 120_000], [60_000, 120_000, 180_000], [UNKNOWN_TIME] * 3)
    chapters, repairs = accept_proposals(
        Episode("", "", text, segments),
        [ProposedChapter(start) for start in starts],
        lambda _, bounds: [["船"]] * len(bounds),
    )
    assert [chapter.start for chapter in chapters] == starts
    assert repairs == []


@pytest.mark.parametrize("title", ["***", "—", "…", "🎉"])
def test_signs_alone_are_not_a_title(title: str) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen"
    episode = Episode("", "", text, Segments([0], [UNKNOWN_TIME], [UNKNOWN_TIME], [UNKNOWN_TIME]))
    chapters, repairs = accept_proposals(
        episode, [ProposedChapter(0, title)], lambda _, bounds: [["one two"]] * len(bounds)
    )
    assert ([chapter.title for chapter in chapters], [one.code for one in repairs]) == (["one two"], ["titles_empty"])


PAGE = (Path(__file__).parents[4] / "docs" / "chapters.md").read_text()


def test_each_repair_is_listed_with_its_sentence() -> None:
    section = PAGE[PAGE.index("## How chapters are made") : PAGE.index("### Measuring engines")]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M)) == REPAIR_SENTENCES


def test_repair_sentences_name_the_limits() -> None:
    assert f" {MIN_CHAPTER_WORDS} words" in REPAIR_SENTENCES["chapters_too_short"]
    assert f" {MAX_TITLE_CHARACTERS} characters" in REPAIR_SENTENCES["titles_cut"]
