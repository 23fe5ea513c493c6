"""Matched words as spans of a text, and excerpts."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from query_api.search.highlight import Match, Span, best_excerpt, merge_spans, piece_spans, term_spans
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.opensearch.analysis import AnalysedTerm, split_on_white_space

TABLE = QueryTable.load(resolve_model_directory("projected-minilm-l6"))


def sparse(piece: str, contribution: float = 1.0) -> dict[int, Match]:
    """Return the match of a piece. A piece that continues a word is taken from the end of "aero" and that piece."""
    i = TABLE.ids(piece.replace("##", "aero"))[-1]
    assert TABLE.piece(i) == piece
    return {i: Match("sparse", piece, contribution, i)}


def marked(text: str, *pieces: str) -> list[str]:
    matches = {i: match for piece in pieces for i, match in sparse(piece).items()}
    return [text[span.start : span.end] for span in merge_spans(piece_spans(text, TABLE.spans(text), matches))]


def test_a_word_is_marked_whole_when_one_of_its_pieces_matched() -> None:
    assert [TABLE.piece(i) for i in TABLE.ids("aerofoil")] == ["aero", "##foil"]
    assert marked("The aerofoil, again: AEROFOIL!", "aero") == ["aerofoil", "AEROFOIL"]
    assert marked("The aerofoil", "##foil") == ["aerofoil"]
    assert marked("The aerofoil", "foil") == []


def test_characters_are_counted_not_bytes_or_code_units() -> None:
    """The text has an emoji, letters with combining marks, and Han."""
    decomposed = "cafe\u0301"
    text = f"👩\u200d👩\u200d👧 {decomposed} naïve 中文 x\u0301 end"
    assert marked(text, "cafe", "naive", "中", "end") == [decomposed, "naïve", "中", "end"]
    assert marked("x\u0301 y", "x") == ["x\u0301"]


def test_punctuation_and_scripts_without_spaces_are_not_widened() -> None:
    assert marked("is it? yes", "?") == ["?"]
    assert marked("中文字", "文") == ["文"]


def test_terms_are_marked_at_the_offsets_of_the_analyser() -> None:
    text = "(The dogs' 😀runs) o'neil-dog."
    terms = {
        "dogs": [AnalysedTerm("dog", 0, 4)],
        "o'neil-dog": [AnalysedTerm("o'neil", 0, 6), AnalysedTerm("dog", 7, 10)],
    }
    spans = term_spans(split_on_white_space(text), terms, {"dog": Match("lexical", "dog", 2.0)})
    assert [(span.start, text[span.start : span.end]) for span in spans] == [(5, "dogs"), (25, "dog")]


def test_a_word_of_both_lists_is_one_span_with_each_match_once() -> None:
    one, two = Match("sparse", "slip", 1.0, 7), Match("lexical", "slipstream", 2.0)
    spans = [Span(4, 14, (one,)), Span(4, 14, (one,)), Span(4, 14, (two,)), Span(14, 15, (one,))]
    assert merge_spans(spans) == [Span(4, 14, (two, one)), Span(14, 15, (one,))]


offsets = st.tuples(st.integers(0, 60), st.integers(1, 9), st.integers(0, 3))


@given(st.lists(offsets, max_size=20))
def test_spans_are_in_order_and_do_not_overlap(triples: list[tuple[int, int, int]]) -> None:
    spans = [Span(start, start + size, (Match("sparse", str(i), float(i), i),)) for start, size, i in triples]
    result = merge_spans(spans)
    for before, after in itertools.pairwise(result):
        assert before.end <= after.start
    covered = {offset for span in spans for offset in range(span.start, span.end)}
    assert {offset for span in result for offset in range(span.start, span.end)} == covered
    assert {match for span in result for match in span.matches} == {match for span in spans for match in span.matches}


def test_an_excerpt_shows_what_matched_most() -> None:
    filler = "Nothing to see in this sentence at all. " * 10
    text = f"{filler}A folder for a while. Make a temporary folder here, please. {filler}"
    spans = merge_spans(piece_spans(text, TABLE.spans(text), sparse("temporary", 3.0) | sparse("folder", 2.0)))
    start, end = best_excerpt(text, spans, 70)
    assert "Make a temporary folder here" in text[start:end]
    assert end - start <= 70


@given(
    st.text(alphabet="ab .\n", max_size=300),
    st.lists(st.tuples(st.integers(0, 290), st.integers(1, 9), st.integers(0, 3)), max_size=20),
    st.integers(20, 120),
)
def test_an_excerpt_is_a_part_of_its_text_within_the_limit(
    text: str, triples: list[tuple[int, int, int]], characters: int
) -> None:
    spans = merge_spans(
        Span(start, start + size, (Match("lexical", str(i), i + 1.0),))
        for start, size, i in triples
        if start + size <= len(text)
    )
    start, end = best_excerpt(text, spans, characters)
    assert 0 <= start <= end <= len(text)
    assert end - start <= characters
    if any(span.end - span.start <= characters for span in spans):
        assert any(start <= span.start and span.end <= end for span in spans)


def test_a_megabyte_without_a_space_is_marked_in_bounded_time() -> None:
    text = "ab" * 500_000
    every = [(7, at, at + 2) for at in range(0, 20_000, 2)]
    assert len(merge_spans(piece_spans(text, every, {7: Match("sparse", "ab", 1.0, 7)}))) == 1
