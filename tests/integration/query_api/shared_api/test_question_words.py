"""Function words of questions: an English index does not search for them, and other indexes do."""

import httpx
import pytest

TEXTS = {
    "noise": "What do you do, and how do you do it? How and what and which of these?",
    "subject": "Pause the program.",
}


@pytest.fixture(scope="module", params=["english", "standard"])
def language(request: pytest.FixtureRequest, api: httpx.Client) -> str:
    name: str = request.param
    api.put(f"/v1/indexes/{name}", json={"language": name}).raise_for_status()
    documents = [{"id": key, "text": text} for key, text in TEXTS.items()]
    job = api.post(f"/v1/indexes/{name}/documents", json=documents).raise_for_status().json()["job"]["id"]
    assert api.get(f"/v1/jobs/{job}").json()["accepted"] == len(TEXTS)  # the job status refreshes the index
    return name


def found(api: httpx.Client, index: str, query: str) -> list[str]:
    body = {"query": query, "mode": "lexical", "explain": True}
    hits = api.post(f"/v1/indexes/{index}/search", json=body).raise_for_status().json()["hits"]
    return [hit["id"] for hit in hits]


def test_only_an_english_index_leaves_question_words_out(api: httpx.Client, language: str) -> None:
    question = found(api, language, "how do you pause what")
    assert question == (["subject"] if language == "english" else ["noise", "subject"])


def test_question_words_alone_are_searched(api: httpx.Client, language: str) -> None:
    assert found(api, language, "what do you do") == ["noise"]
