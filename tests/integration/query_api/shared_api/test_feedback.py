"""Feedback and earlier turns through the API: their effect on a query, their explanation, and refused requests."""

import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.settings import Settings
from tests.preloaded import run_sparsewell

Eventually = Callable[[Callable[[], object], float, str], None]
PATH = "/v1/indexes/animals"
DOCUMENTS = {
    "cat1": "The jaguar is a large cat of the forest.",
    "cat2": "A jaguar hunts in the forest and swims in rivers.",
    "cat3": "The otter hunts in rivers of the forest.",
    "car1": "The jaguar is a fast car with an engine.",
    "car2": "Repair of the engine of a jaguar.",
    "car3": "An engine needs oil, and the gearbox too.",
    "long": "Boats cross the lake. " * 40 + "The jaguar sleeps under palms. " + "Boats cross the lake. " * 40,
}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_feedback_documents": 5, "max_added_pieces": 30, "max_context_turns": 3})


@pytest.fixture
def animals(api: httpx.Client, encode: Callable[[], None]) -> httpx.Client:
    """Write seven encoded documents and a document without a vector."""
    api.put(PATH, json={"window": {"pieces": 64, "overlap": 8}}).raise_for_status()
    documents = [{"id": one, "text": text} for one, text in DOCUMENTS.items()]
    job = api.post(f"{PATH}/documents", json=documents).json()["job"]["id"]
    encode()
    assert api.get(f"/v1/jobs/{job}").json()["states"]["encoded"] == 7
    job = api.post(f"{PATH}/documents", json=[{"id": "late", "text": "A late jaguar."}]).json()["job"]["id"]
    assert api.get(f"/v1/jobs/{job}").json()["states"]["pending"] == 1  # the job status refreshes the index
    return api


def ask(api: httpx.Client, **members: Any) -> dict[str, Any]:
    response = api.post(f"{PATH}/search", json={"mode": "sparse", "explain": True} | members)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    accounted(answer)
    return answer


def accounted(answer: dict[str, Any]) -> None:
    """Assert that every weight is the sum of its origins and every score the sum of its contributions.

    Each contribution is the sum of its origins.
    """
    for piece in answer["pieces"]:
        assert piece["weight"] > 0
        assert sum(piece["origins"].values()) == pytest.approx(piece["weight"])
    for hit in answer["hits"]:
        for name, score in hit["scores"].items():
            of_list = [why for why in hit["why"] if why["list"] == name]
            assert sum(why["contribution"] for why in of_list) == pytest.approx(score, rel=1e-5)
            for why in of_list:
                if name == "sparse":
                    assert sum(why["origins"].values()) == pytest.approx(why["contribution"])


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def origins(answer: dict[str, Any], origin: str) -> set[str]:
    return {piece["piece"] for piece in answer["pieces"] if origin in piece["origins"]}


def test_the_best_documents_of_a_first_round_move_the_query(animals: httpx.Client) -> None:
    plain = ask(animals, query="otter")
    assert (ids(plain), plain.get("feedback")) == (["cat3"], None)
    assert all(piece["origins"].keys() == {"query"} for piece in plain["pieces"])
    for mode, choose_by in (("sparse", "sparse"), ("sparse", "hybrid"), ("hybrid", "lexical"), ("hybrid", "hybrid")):
        fed = ask(animals, query="otter", mode=mode, feedback={"documents": 1, "choose_by": choose_by, "pieces": 30})
        assert fed["feedback"]["documents"] == ["cat3"]
        assert ids(fed)[0] == "cat3"
        assert {"cat1", "cat2"} <= set(ids(fed)), "found by what the first document holds"
        assert {"rivers", "forest"} <= origins(fed, "feedback")
        assert {why["piece"] for hit in fed["hits"] for why in hit["why"]} >= {"forest"}

    plain = ask(animals, query="jaguar engine", mode="hybrid")
    same = ask(animals, query="jaguar engine", mode="hybrid", feedback={"beta": 0})
    assert same["hits"] == plain["hits"]
    assert same["pieces"] == plain["pieces"]
    assert len(same["feedback"]["documents"]) == 3

    fed = ask(animals, query="palms", feedback={"documents": 1, "pieces": 30})
    assert fed["feedback"]["documents"] == ["long"]
    assert "jaguar" in origins(fed, "feedback")
    assert ids(fed)[0] == "long"
    assert "cat1" in ids(fed)


def test_documents_that_are_named_move_the_query(animals: httpx.Client, eventually: Eventually) -> None:
    more = ask(animals, like=["car2"], mode="hybrid")
    assert more["mode"] == "sparse", "there are no words for a keyword list"
    assert set(ids(more)) >= {"car1", "car3"}
    assert "car2" not in ids(more), "what is given is not found again"
    assert more["feedback"] == {
        "documents": [], "liked": ["car2"], "unliked": [], "without_vector": [], "unknown": []
    }  # fmt: skip
    assert ids(ask(animals, like=["car2"], include_liked=True))[0] == "car2"
    assert ids(ask(animals, like=[{"text": "oil of a gearbox"}]))[0] == "car3"
    both = ask(animals, like=[{"text": "oil of a gearbox"}], feedback={"documents": 1, "pieces": 30})
    assert both["feedback"]["documents"] == ["car3"]
    assert "needs" in origins(both, "feedback")

    cats = ask(animals, query="jaguar", mode="hybrid", like=["cat3"], unlike=["car1"])
    assert ids(cats)[:2] in (["cat1", "cat2"], ["cat2", "cat1"])
    assert not {"cat3", "car1"} & set(ids(cats))
    jaguar = next(piece for piece in cats["pieces"] if piece["piece"] == "jaguar")
    assert jaguar["origins"]["unlike"] < 0 < jaguar["origins"]["query"]
    cars = ask(animals, query="jaguar", like=["car3"], unlike=[{"text": "forest rivers"}], feedback={"documents": 0})
    assert set(ids(cars)[:2]) == {"car1", "car2"}
    assert cars["feedback"]["documents"] == []

    answer = ask(animals, query="jaguar", like=["late", "cat1", "nowhere"], unlike=["car1", "neither"])
    assert answer["feedback"] == {
        "documents": [], "liked": ["cat1"], "unliked": ["car1"], "without_vector": ["late"],
        "unknown": ["nowhere", "neither"],
    }  # fmt: skip
    animals.delete(f"{PATH}/documents/cat2").raise_for_status()
    liked = {"query": "jaguar", "like": ["cat2"]}
    eventually(lambda: ask(animals, **liked)["feedback"]["unknown"] == ["cat2"], 60, "the deletion is seen")
    fed = ask(animals, query="late jaguar", mode="hybrid", feedback={"documents": 2, "choose_by": "lexical"})
    assert "late" in fed["feedback"]["without_vector"]
    options = ["--like", "car3", "--like", "late", "--explain", "--after", "a jaguar", "--api", str(animals.base_url)]
    done = run_sparsewell("search", "-i", "animals", *options, environment=os.environ)
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    assert "from like" in shown
    assert "from context" in shown
    assert "Feedback: liked: car3; without vector: late" in shown
    refused = animals.post(f"{PATH}/search", json={"like": ["late", "nowhere"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "nothing_to_search_by")


def test_pages_of_a_search_with_feedback(animals: httpx.Client) -> None:
    members = {"query": "jaguar", "feedback": {"documents": 2}, "like": ["car1"], "mode": "hybrid"}
    whole = ids(ask(animals, size=10, **members))
    cursor, seen = "*", []
    while cursor is not None:
        page = ask(animals, size=2, cursor=cursor, **members)
        seen += ids(page)
        cursor = page["cursor"]
    assert seen == whole
    cursor, seen = "*", []
    while cursor is not None:
        page = ask(animals, size=1, cursor=cursor, mode="hybrid", like=["car1", "cat1"])
        seen += ids(page)
        cursor = page["cursor"]
    assert sorted(seen) == ["car2", "car3", "cat2", "cat3", "long"]

    # filters apply in both rounds, batches share requests, and light tokens may follow in a second phase
    narrowed = {"filter": {"field": "_id", "any_of": ["cat1", "cat2", "late"]}} | members
    assert sorted(ids(ask(animals, **narrowed))) == ["cat1", "cat2", "late"]
    assert set(ask(animals, **narrowed)["feedback"]["documents"]) <= {"cat1", "cat2"}
    searches = [
        {"index": "animals"} | one for one in (members, {"query": "engine"}, {"like": ["car1"]}, {"like": ["late"]})
    ]
    answers = animals.post("/v1/search/batch", json={"searches": searches}).json()["answers"]
    assert [one["status"] for one in answers] == [200, 200, 200, 422]
    assert ids(answers[0]["answer"]) == whole
    in_two = ask(animals, two_phase={"threshold": 0.4, "window": 100}, **members)
    assert sorted(ids(in_two)) == sorted(whole)


def test_earlier_turns_say_what_a_follow_up_leaves_out(animals: httpx.Client) -> None:
    follow_up = "and in the forest?"
    for mode in ("sparse", "lexical", "hybrid"):
        alone = ask(animals, query=follow_up, mode=mode)
        context = {"turns": ["boats on a lake", "where does an otter hunt"], "share": 0.9, "decay": 0.5}
        told = ask(animals, query=follow_up, mode=mode, context=context)
        assert {hit["score"] for hit in alone["hits"][:3]} and ids(told)[0] == "cat3"
        assert "long" in ids(told), "the turn before that is not forgotten"
        weights = {piece["piece"]: piece["weight"] for piece in told["pieces"]}
        assert {"otter", "boats"} <= origins(told, "context")
        assert weights["otter"] > weights["boats"] > 0
        assert "forest" not in origins(told, "context"), "what the follow-up says itself keeps its weight"

    answer = ask(
        animals,
        query="in the forest",
        mode="hybrid",
        context={"turns": ["a jaguar"]},
        like=["cat3"],
        unlike=["car1"],
        feedback={"documents": 2, "choose_by": "hybrid"},
    )
    found = {origin for piece in answer["pieces"] for origin in piece["origins"]}
    assert found >= {"query", "context", "like", "unlike", "feedback"}

    # in a script without spaces, each character of a word may become a clause
    turn = "北京東京大阪上海香港台北漢城" * 100
    answer = animals.post(f"{PATH}/search", json={"query": "jaguar", "context": {"turns": [turn] * 3}})
    assert answer.status_code == 200, answer.text


CANNOT_BE_ASKED: list[tuple[dict[str, Any], str]] = [
    ({}, "empty_query"),
    ({"query": " ", "unlike": ["cat1"]}, "empty_query"),
    ({"query": "", "context": {"turns": ["a jaguar"]}}, "empty_query"),
    ({"query": "x", "feedback": {"documents": 6}}, "feedback_too_large"),
    ({"query": "x", "feedback": {"pieces": 31}}, "feedback_too_large"),
    ({"query": "x", "like": ["a", "b", "c"], "unlike": ["d", "e", "f"]}, "feedback_too_large"),
    ({"query": "x", "feedback": {"beta": -1}}, "invalid_request"),
    ({"query": "x", "feedback": {"alpha": "NaN"}}, "invalid_request"),
    ({"query": "x", "feedback": {"choose_by": "dense"}}, "invalid_request"),
    ({"query": "x", "feedback": {"more": 1}}, "invalid_request"),
    ({"query": "x", "mode": "lexical", "feedback": {}}, "feedback_without_vectors"),
    ({"mode": "lexical", "like": ["cat1"]}, "feedback_without_vectors"),
    ({"query": "x", "like": ["a"], "unlike": ["a"]}, "liked_and_unliked"),
    ({"query": "x", "like": [""]}, "bad_id"),
    ({"query": "x", "like": ["a\u0000"]}, "bad_id"),
    ({"query": "x", "like": ["y" * 600]}, "bad_id"),
    ({"query": "x", "like": [7]}, "invalid_request"),
    ({"query": "x", "like": [{"text": " "}]}, "empty_example"),
    ({"query": "x", "like": [{"text": "y" * 5000}]}, "example_too_long"),
    ({"query": "x", "context": {"turns": []}}, "invalid_request"),
    ({"query": "x", "context": {"turns": ["a", ""]}}, "empty_turn"),
    ({"query": "x", "context": {"turns": ["y" * 5000]}}, "turn_too_long"),
    ({"query": "x", "context": {"turns": ["a", "b", "c", "d"]}}, "too_many_turns"),
    ({"query": "x", "context": {"turns": ["a"], "decay": 2}}, "invalid_request"),
    ({"query": "x", "context": ["a"]}, "invalid_request"),
]  # fmt: skip


def test_what_cannot_be_asked_for(api: httpx.Client, subtests: pytest.Subtests) -> None:
    for members, code in CANNOT_BE_ASKED:
        with subtests.test(members=members, code=code):
            response = api.post(f"{PATH}/search", json=members)
            assert (response.status_code, response.json()["code"]) == (422, code)


def test_halves_of_characters_are_refused(api: httpx.Client) -> None:
    for body, code in (
        (b'{"query": "x", "like": ["\\ud800"]}', "bad_id"),
        (b'{"query": "x", "like": [{"text": "\\ud800"}]}', "bad_example"),
        (b'{"query": "x", "context": {"turns": ["\\ud800"]}}', "bad_turn"),
    ):
        response = api.post(f"{PATH}/search", content=body, headers={"content-type": "application/json"})
        assert (response.status_code, response.json()["code"]) in ((422, code), (422, "invalid_json"))
