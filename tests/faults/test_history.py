"""The checker finds a planted loss of each kind, and reports nothing for a correct history."""

import pytest

from tests.faults.history import Final, Findings, History, Written, check


def history(*acknowledged: Written, unanswered: tuple[Written, ...] = ()) -> History:
    one = History("docs")
    one.acknowledge(*acknowledged)
    one.leave_unanswered(*unanswered)
    return one


def encoded(text: str) -> Final:
    return Final("encoded", text)


PUT_1, PUT_2, DELETE_3 = Written("a", 1, "one"), Written("a", 2, "two"), Written("a", 3, None)
TOMBSTONE = Final("deleted", None)


@pytest.mark.parametrize(
    ("told", "final"),
    [
        (history(PUT_1), {"a": encoded("one")}),
        (history(PUT_2, PUT_1), {"a": encoded("two")}),
        (history(PUT_1), {"a": Final("dead", "one", reason="encoding_failed")}),
        (history(PUT_1, DELETE_3), {"a": TOMBSTONE}),
        (history(PUT_1, DELETE_3), {}),
        (history(PUT_1, unanswered=(PUT_2,)), {"a": encoded("one")}),
        (history(PUT_1, unanswered=(PUT_2,)), {"a": encoded("two")}),
        (history(PUT_1, unanswered=(PUT_2,)), {"a": Final("pending", "two")}),
        (history(PUT_1, unanswered=(DELETE_3,)), {"a": TOMBSTONE}),
        (history(PUT_1, unanswered=(DELETE_3,)), {}),
        (history(unanswered=(PUT_1,)), {}),
        (history(), {}),
    ],
)
def test_a_promise_that_was_kept_is_no_finding(told: History, final: dict[str, Final]) -> None:
    assert check(told, final).broken == []


@pytest.mark.parametrize(
    ("told", "final", "kind"),
    [
        (history(PUT_1), {}, "lost"),
        (history(PUT_1), {"a": TOMBSTONE}, "lost"),
        (history(PUT_1), {"a": Final("pending", "one")}, "lost"),
        (history(PUT_1), {"a": Final("dead", "one")}, "lost"),
        (history(PUT_1), {"a": Final("encoded", "one", found=False)}, "lost"),
        (history(PUT_1, unanswered=(PUT_2,)), {}, "lost"),
        (history(PUT_1, PUT_2), {"a": encoded("one")}, "wrong"),
        (history(PUT_2, unanswered=(PUT_1,)), {"a": encoded("one")}, "wrong"),
        (history(PUT_1), {"a": encoded("never sent")}, "wrong"),
        (history(PUT_1), {"a": Final("encoded", "one", vectors_fit=False)}, "wrong"),
        (history(PUT_1, DELETE_3), {"a": encoded("one")}, "resurrected"),
        (history(PUT_1, DELETE_3), {"a": Final("pending", "one")}, "resurrected"),
        (history(DELETE_3, unanswered=(PUT_2,)), {"a": encoded("two")}, "resurrected"),
    ],
)
def test_a_planted_loss_is_found(told: History, final: dict[str, Final], kind: str) -> None:
    findings = check(told, final)
    assert len(findings.broken) == 1
    assert getattr(findings, kind)[0].startswith("a: ")


def test_neighbours_are_judged_each_on_its_own() -> None:
    told = history(PUT_1, Written("b", 1, "b"), Written("c", 1, "c"), Written("d", 1, "d"), Written("d", 2, None))
    final = {"b": encoded("b"), "c": encoded("x"), "d": encoded("d")}
    findings = check(told, final)
    assert [len(found) for found in (findings.lost, findings.wrong, findings.resurrected)] == [1, 1, 1]
    assert Findings().broken == []


def test_a_refused_write_that_stands_in_the_end_is_found() -> None:
    told = history(PUT_2)
    told.refuse(PUT_1, "stale_version")
    assert check(told, {"a": encoded("two")}).broken == []
    assert len(check(told, {"a": encoded("one")}).wrong) == 1
