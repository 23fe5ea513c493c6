"""The pieces that decided the queries which gained or lost."""

from typing import Any

from cli.relevance.decisive_pieces import (
    MAX_EXPLAINED_QUERIES,
    MAX_PIECES,
    DecisivePiece,
    decisive_pieces,
    explain_changes,
    find_document_and_rival,
)
from models.significance import compare_rankings


def hit(identifier: str, *why: tuple[str, str, float], **parts: dict[str, float]) -> dict[str, Any]:
    contributions = [{"list": kind, "piece": piece, "contribution": value} for kind, piece, value in why]
    shares = {
        kind: {name: {"share": 0.5, "scaled": value * 2, "contribution": value} for name, value in of.items()}
        for kind, of in parts.items()
    }
    return {"id": identifier, "why": contributions} | shares


def test_the_document_that_moved_the_most_is_chosen_with_the_one_that_overtook_it() -> None:
    grades = {"judged": 1, "deep": 2, "wrong": 0}
    before = {"judged": 1, "deep": 50, "other": 2, "wrong": 3}
    after = {"other": 1, "wrong": 2, "judged": 3, "deep": 51}
    assert find_document_and_rival(grades, before, after) == ("judged", "other")
    assert find_document_and_rival(grades, after, before) == ("judged", "other")
    assert find_document_and_rival(grades, before, before) is None
    assert find_document_and_rival({"wrong": 0}, before, after) is None


def test_a_document_that_is_lost_is_overtaken_by_the_best_new_one() -> None:
    assert find_document_and_rival({"a": 1}, {"x": 1, "a": 2}, {"x": 1, "y": 2}) == ("a", "y")
    assert find_document_and_rival({"a": 1}, {"x": 1, "a": 2}, {"x": 1}) == ("a", None)


def test_pieces_that_differ_the_most_come_first_in_each_list() -> None:
    ours = hit(
        "a", ("sparse", "wing", 2.0), ("sparse", "lift", 1.0), ("lexical", "lift", 9.0), reranking={"table": 0.3}
    )
    theirs = hit(
        "b", ("sparse", "wing", 0.5), ("sparse", "lift", 1.0), ("lexical", "lift", 4.0), ("lexical", "lift", 3.0)
    )
    assert decisive_pieces([theirs, ours], "a", "b") == [
        DecisivePiece("lexical", "lift", 9.0, 7.0),
        DecisivePiece("sparse", "wing", 2.0, 0.5),
        DecisivePiece("reranking", "table", 0.3, 0.0),
    ]
    assert decisive_pieces([ours], "a", "b") == []
    many = hit("a", *(("sparse", f"p{number}", float(number)) for number in range(20)))
    assert [piece.piece for piece in decisive_pieces([many, hit("b")], "a", "b")] == ["p19", "p18", "p17", "p16", "p15"]
    assert MAX_PIECES == 5


def test_gained_and_lost_queries_are_explained_in_both_searches() -> None:
    names = [f"q{number}" for number in range(MAX_EXPLAINED_QUERIES + 2)]
    comparison = compare_rankings(dict.fromkeys(names, 0.0) | {"down": 1.0}, dict.fromkeys(names, 1.0) | {"down": 0.5})
    better, worse = [("a", 2.0), ("b", 1.0)], [("b", 2.0), ("a", 1.0)]
    asked: list[tuple[str, str]] = []

    def explain(side: str) -> Any:
        def answer(text: str) -> list[dict[str, Any]]:
            asked.append((side, text))
            return [hit("a", ("sparse", side, 1.0)), hit("b")]

        return answer

    changes = list(
        explain_changes(
            comparison,
            {name: f"text of {name}" for name in (*names, "down")},
            {name: {"a": 1} for name in (*names, "down")},
            (dict.fromkeys(names, worse) | {"down": better}, dict.fromkeys(names, better) | {"down": worse}),
            (explain("before"), explain("after")),
        )
    )
    assert len(changes) == MAX_EXPLAINED_QUERIES + 1
    assert len(asked) == 2 * len(changes)
    lost = changes[-1]
    assert (lost.query, lost.text, lost.document, lost.rival) == ("down", "text of down", "a", "b")
    assert (lost.ranks, lost.rival_ranks) == ((1, 2), (2, 1))
    assert lost.as_json()["after"] == [{"list": "sparse", "piece": "after", "document": 1.0, "rival": 0.0}]
