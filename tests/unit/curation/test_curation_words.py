"""Words as rules compare them, and phrases found among them."""

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from services.curation.words import Phrases, key, words


def test_what_two_spellings_have_in_common() -> None:
    assert key("Heart-Attack, the!") == ("heart", "attack", "the")
    assert key("The doctor's") == key("the doctor’s") == ("the", "doctor")
    assert key("ﬁne Ｆｏｏ STRASSE") == ("fine", "foo", "strasse")
    assert key("Straße") == ("strasse",)
    assert key("node.js v3.14 don't") == ("node.js", "v3.14", "don't")
    assert key("東京 tower") == ("東", "京", "tower")
    assert key(" ?! 🤖") == ()


@given(st.text())
def test_offsets_are_those_of_the_text(text: str) -> None:
    found = words(text)
    assert tuple(word.text for word in found) == key(text)
    assert all(key(text[word.start : word.end]) == (word.text,) for word in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def test_the_longest_phrase_holds_from_left_to_right() -> None:
    held = Phrases([(key(text), text) for text in ("new york", "new york times", "york", "times square")])
    found = held.longest(key("old york and the new york times square"))
    assert [(here.start, here.end, list(here.held)) for here in found] == [
        (1, 2, ["york"]),
        (4, 7, ["new york times"]),
    ]
    everywhere = {one for here in held.everywhere(key("the new york times square")) for one in here.held}
    assert everywhere == {"new york", "new york times", "york", "times square"}
    assert list(held.at(key("New York"))) == ["new york"]
    assert not held.at(())
    assert held.longest(key("new")) == []


def test_a_long_query_of_one_letter_takes_no_time() -> None:
    held = Phrases([(("a",) * n, n) for n in range(1, 9)])
    began = time.process_time()
    found = held.longest(key("a " * 2000))
    assert time.process_time() - began < 5
    assert len(found) == 250
