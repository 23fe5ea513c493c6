"""Sentences, sections and passages of a text, and its function words."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.own.pairs import ENGLISH_FUNCTION_WORDS, count_passages, find_function_words, split_words
from models.training.own.sections import (
    MIN_PASSAGE_WORDS,
    find_sentence_spans,
    split_passages,
    split_sections,
    split_sentences,
)

CASES = {
    "One. Two! Three? Four": ["One.", "Two!", "Three?", "Four"],
    'He said "yes." Then he left.': ['He said "yes."', "Then he left."],
    "Dr. Smith met J. Doe at 3.5 km, e.g. here. He left.": [
        "Dr. Smith met J. Doe at 3.5 km, e.g. here.",
        "He left.",
    ],
    "See fig. 3 and approx. 4 others. Done.": ["See fig. 3 and approx. 4 others.", "Done."],
    "the flow was slow . a wing was used . it lifted": ["the flow was slow .", "a wing was used .", "it lifted"],
    "the flow was slow. a wing was used. it lifted": ["the flow was slow.", "a wing was used.", "it lifted"],
    "It uses pip. but not conda. Good.": ["It uses pip. but not conda.", "Good."],
    "A heading\n\nA text": ["A heading", "A text"],
    "今日は。元気ですか？はい": ["今日は。", "元気ですか？", "はい"],
    "Ok... Then [1]. (So) it is.": ["Ok...", "Then [1].", "(So) it is."],
    "": [],
    " \n ": [],
    "...": ["..."],
}


@pytest.mark.parametrize(("text", "wanted"), CASES.items())
def test_sentences(text: str, wanted: list[str]) -> None:
    assert split_sentences(text) == wanted


@given(st.text(alphabet=st.sampled_from("aB1 .!?\n\"'。)"), max_size=80) | st.text(max_size=80))
def test_sentences_cover_all_text_but_white_space(text: str) -> None:
    spans = find_sentence_spans(text)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    assert all(text[start:end].strip() == text[start:end] != "" for start, end in spans)


@pytest.mark.parametrize("unit", [". ", "a", "\n", ".", "a. ", "1.", '."', "A b. ", " ", " #", "\n ", "-", "1.1", "`"])
@pytest.mark.parametrize("begin", ["", "# ", "1 A"])
def test_any_text_takes_linear_time(unit: str, begin: str) -> None:
    text = begin + unit * (200_000 // len(unit)) + "b"
    begun = time.process_time()
    find_sentence_spans(text)
    split_passages(text, 150)
    assert time.process_time() - begun < 3


def test_markdown_sections() -> None:
    text = "Lead.\n\n# First\nText one.\n## Second ##\n\nText two.\n\nThird\n-----\nText three.\n# Empty\n"
    assert [(one.heading, one.text) for one in split_sections(text)] == [
        ("", "Lead."),
        ("First", "Text one."),
        ("Second", "Text two."),
        ("Third", "Text three."),
    ]


def test_numbered_sections() -> None:
    text = "1 Introduction\n\nWings lift.\n\n2.1 The boundary layer\n\nIt is thin.\n\n2. Then a list item that ends.\n"
    assert [one.heading for one in split_sections(text)] == ["Introduction", "The boundary layer"]


@pytest.mark.parametrize(
    "text",
    [
        "```\n# a comment\n```\nText",
        "#hashtag\nText",
        "1. One\n2. Two\n3. Three",
        "In 1999 the wing\nwas new",
        "A sentence that ends.\n---\nMore",
        "3 wings\n\nwere there",
    ],
)
def test_lines_that_only_look_like_headings(text: str) -> None:
    assert [one.heading for one in split_sections(text)] == [""]


def sentence(number: int) -> str:
    return f"Sentence {number} has exactly seven words here."


def test_paragraphs_stay_whole_and_short_ones_are_joined_to_the_next() -> None:
    long = " ".join(sentence(number) for number in range(12))
    found = split_passages(f"{long}\n\nShort one.\n\n{long}", 150)
    assert [one.text for one in found] == [long, f"Short one.\n\n{long}"]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = " ".join(sentence(number) for number in range(100))
    found = split_passages(text, 70)
    assert [len(one.text.split()) for one in found] == [70] * 10
    assert all(one.text.startswith("Sentence") and one.text.endswith("here.") for one in found)


def test_a_sentence_without_end_is_cut_between_words() -> None:
    found = split_passages("word " * 1000, 150)
    assert sum(len(one.text.split()) for one in found) == 1000
    assert max(len(one.text.split()) for one in found) <= 170


def test_passages_stay_in_their_section_and_include_its_short_end() -> None:
    long = " ".join(sentence(number) for number in range(10))
    found = split_passages(f"{long}\n# Next\n{long}\n\nA tail.", 80)
    assert [(one.heading, one.section) for one in found] == [("", 0), ("Next", 1)]
    assert found[1].text.endswith("A tail.")


def test_a_text_of_a_few_words_is_one_passage() -> None:
    assert [one.text for one in split_passages(" A note. ", 150)] == ["A note."]
    assert split_passages("  ", 150) == []


paragraphs = st.lists(st.integers(1, 60), max_size=12).map(
    lambda sizes: "\n\n".join(" ".join(["word"] * size) + "." for size in sizes)
)


@given(paragraphs, st.integers(20, 80))
def test_passages_have_about_the_requested_length_and_lose_little(text: str, most: int) -> None:
    found = split_passages(text, most)
    read = sum(len(one.text.split()) for one in found)
    assert len(text.split()) - read < MIN_PASSAGE_WORDS
    assert all(len(one.text.split()) <= most + 2 * MIN_PASSAGE_WORDS for one in found)


def test_words_and_function_words() -> None:
    assert split_words("Don't re-use the x_1, please: 3.5") == ["Don't", "re-use", "the", "x_1", "please", "3", "5"]
    assert {"about", "the", "what's"} <= ENGLISH_FUNCTION_WORDS
    assert not {"flow", "wing", ""} & ENGLISH_FUNCTION_WORDS


def test_words_of_most_passages_are_function_words() -> None:
    texts = [f"le mot {number}" for number in range(200)]
    assert "le" in find_function_words(count_passages(texts), len(texts))
    assert "le" not in find_function_words(count_passages(texts[:50]), 50)
    assert "17" not in find_function_words(count_passages(texts), len(texts))
