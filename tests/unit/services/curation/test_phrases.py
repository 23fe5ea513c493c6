"""Words in the form that rules compare, and phrases found in a query."""

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from services.curation.rules import PhraseIndex, phrase_key, split_words


def test_equivalent_spellings_have_the_same_key() -> None:
    assert phrase_key("Heart-Attack, the!") == ("heart", "attack", "the")
    assert phrase_key("The doctor's") == phrase_key("the doctor’s") == ("the", "doctor")
    assert phrase_key("ﬁne Ｆｏｏ STRASSE") == ("fine", "foo", "strasse")
    assert phrase_key("Straße") == ("strasse",)
    assert phrase_key("node.js v3.14 don't") == ("node.js", "v3.14", "don't")
    assert phrase_key("東京 tower") == ("東", "京", "tower")
    assert phrase_key(" ?! 🤖") == ()


@given(st.text())
def test_word_offsets_refer_to_the_text(text: str) -> None:
    found = split_words(text)
    assert tuple(word.text for word in found) == phrase_key(text)
    assert all(phrase_key(text[word.start : word.end]) == (word.text,) for word in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def test_the_longest_phrase_wins_from_left_to_right() -> None:
    held = PhraseIndex([(phrase_key(text), text) for text in ("new york", "new york times", "york", "times square")])
    found = held.longest(phrase_key("old york and the new york times square"))
    assert [(here.start, here.end, list(here.values)) for here in found] == [
        (1, 2, ["york"]),
        (4, 7, ["new york times"]),
    ]
    everywhere = {one for here in held.find_all(phrase_key("the new york times square")) for one in here.values}
    assert everywhere == {"new york", "new york times", "york", "times square"}
    assert list(held.at(phrase_key("New York"))) == ["new york"]
    assert not held.at(())
    assert held.longest(phrase_key("new")) == []


def test_a_long_repetitive_query_is_fast() -> None:
    held = PhraseIndex([(("a",) * n, n) for n in range(1, 9)])
    began = time.process_time()
    found = held.longest(phrase_key("a " * 2000))
    assert time.process_time() - began < 5
    assert len(found) == 250
