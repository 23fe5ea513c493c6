"""Conversations derived from judged queries."""

from benchmarks.quality.conversations import (
    ContentWords,
    Conversation,
    conversations_from_overlap,
    conversations_from_series,
    unrelated_conversations,
)

QUERIES = {
    "m1-0": "how to delete a temporary folder",
    "m1-1": "is the temporary folder deleted on windows",
    "m1-2": "permissions of files",
    "m2-0": "copy a list",
}


def test_words_of_earlier_turns_are_left_out() -> None:
    words = ContentWords(QUERIES.values())
    said = [QUERIES["m1-0"]]
    assert words.ellipsis(QUERIES["m1-1"], said) == "is the deleted on windows"
    assert words.ellipsis(QUERIES["m2-0"], said) is None, "nothing of it was said"
    assert words.ellipsis("Temporary folder", said) is None, "nothing would be left"


def test_words_of_many_queries_do_not_count() -> None:
    words = ContentWords([f"summarize topic{n}" for n in range(20)])
    assert words.content("Summarize the topic3") == {"topic3"}
    assert ContentWords(["summarize"]).content("summarize") == {"summarize"}, "of few queries all words count"


def test_the_earlier_turn_shares_most_words() -> None:
    found = {one.query: one for one in conversations_from_overlap(QUERIES)}
    assert found["m1-1"] == Conversation("m1-1", (QUERIES["m1-0"],), "is the deleted on windows", QUERIES["m1-1"])
    assert "m2-0" not in found


def test_turns_of_a_series_are_earlier_queries() -> None:
    queries = QUERIES | {"m1-3": "permissions of sockets", "m2-1": "delete a folder"}
    found = {one.query: one for one in conversations_from_series(queries, lambda query: query.split("-")[0], 2)}
    assert set(found) == {"m1-1", "m1-3"}
    assert found["m1-3"].turns == ("is the deleted on windows", "permissions of files")
    assert found["m1-3"].follow_up == "of sockets"


def test_unrelated_turns_share_no_word() -> None:
    words = ContentWords(QUERIES.values())
    found = unrelated_conversations(QUERIES, 1)
    assert found == unrelated_conversations(QUERIES, 1), "drawn the same way each time"
    assert {one.query for one in found} == set(QUERIES)
    for one in found:
        assert one.follow_up == one.whole == QUERIES[one.query]
        assert not words.content(one.turns[0]) & words.content(one.whole)
