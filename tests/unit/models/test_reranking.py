"""Prompts of the listwise reranker, and the parser of answers."""

from hypothesis import given
from hypothesis import strategies as st

from models.reranking import MAX_PASSAGE_CHARACTERS, build_prompt, parse_permutation, ranking_windows


def test_the_prompt_numbers_the_passages_and_shows_each_on_a_line() -> None:
    prompt = build_prompt("pause\nit", ["one\n\ntwo", "see [1] and [22]", "x" * 5000])
    assert "[1] one two\n[2] see (1) and (22)\n[3] " + "x" * MAX_PASSAGE_CHARACTERS + "\n" in prompt
    assert "The query: pause it" in prompt
    assert "x" * (MAX_PASSAGE_CHARACTERS + 1) not in prompt


def test_omitted_passages_follow_the_ranked_ones() -> None:
    assert parse_permutation("[2] > [3] > [1]", 3) == [1, 2, 0]
    assert parse_permutation("I think [3], then [3] and [9].", 3) == [2, 0, 1]
    assert parse_permutation("no idea", 3) == [0, 1, 2]
    assert parse_permutation("[0] [-1] [999999999999999999999]", 2) == [0, 1]


@given(st.text(), st.integers(0, 30))
def test_any_answer_gives_a_permutation(answer: str, count: int) -> None:
    assert sorted(parse_permutation(answer, count)) == list(range(count))


@given(st.integers(0, 300))
def test_windows_slide_from_the_end_to_the_beginning(count: int) -> None:
    found = ranking_windows(count)
    assert found[0][1] == count
    assert found[-1][0] == 0
    assert all(end - start <= 20 for start, end in found)
    assert all(start <= before for (_, before), (start, _) in zip(found[1:], found, strict=False))
