"""Tests of index names and declarations."""

import pytest
from pydantic import ValidationError

from services.errors import InvalidInput
from services.index_spec import Generation, IndexNames, IndexSpec, validate_index_name


@pytest.mark.parametrize("name", ["docs", "a", "0", "my-docs_2", "x" * 100])
def test_valid_index_names(name: str) -> None:
    assert validate_index_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "Docs", "-a", "_a", "a.b", "a b", "a/b", "a*", "a,b", "a#", "a:b", "..", "x" * 101, "é", "a\n", "_all", "a?b"],
)
def test_invalid_index_names(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate_index_name(name)
    assert caught.value.code == "invalid_index_name"


def test_client_indexes_never_collide_with_system_indexes() -> None:
    names = IndexNames("sparsewell")
    assert names.jobs == "sparsewell_jobs"
    assert names.physical("a", 1) == "sparsewell-a.g000001"
    assert names.alias("a-g000001") != names.physical("a", 1)


@pytest.mark.parametrize(
    "body",
    [
        {"fields": {"a.b": "keyword"}},
        {"fields": {"_id": "keyword"}},
        {"fields": {"a": "integer"}},
        {"fields": {f"f{i}": "keyword" for i in range(101)}},
        {"window": {"pieces": 8, "overlap": 0}},
        {"window": {"pieces": 64, "overlap": 33}},
        {"document_top_k": 0},
        {"document_top_k": "512"},
        {"window": {"pieces": "64", "overlap": 0}},
        {"unknown": 1},
        {"talk": {"titles_in_keywords": 1, "titles_in_lexical": 1}},
    ],
)
def test_invalid_declarations(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        IndexSpec.model_validate(body)


@pytest.mark.parametrize(
    ("physical", "one"),
    [
        ("p-books.g000001", True), ("p-books.g123456789", True), ("p-books.g1", False), ("p-books2.g000001", False),
        ("q-books.g000001", False), ("p-books.g000001,p-secret.g000001", False), ("p-books.g000001/_search", False),
        ("p-books.g00000*", False), ("p-books.g000001\n", False), ("p-books.g٠٠٠٠٠٠", False),
    ],
)  # fmt: skip
def test_physical_names_of_generations(physical: str, one: bool) -> None:
    assert IndexNames("p").is_generation("books", physical) is one


def test_the_lineage_is_stored_as_identity_and_defaults_to_the_creation_time() -> None:
    members = {
        "index": "papers",
        "number": 1,
        "physical": "sparsewell-papers.g000001",
        "spec": {},
        "encoder": {"name": "e", "fingerprint": "f"},
        "window": {"pieces": 64, "overlap": 16},
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    old, new = Generation.model_validate(members), Generation.model_validate(members | {"identity": "abc"})
    assert (old.lineage, new.lineage) == (members["created_at"], "abc")
    assert new.model_dump(mode="json")["identity"] == "abc"
    assert Generation.model_validate(new.model_dump(mode="json")) == new


def test_deprecated_members_of_talk_are_accepted_and_stored_under_their_present_names() -> None:
    spec = IndexSpec.model_validate({"talk": {"titles_in_keywords": 1, "passage_in_keywords": 0}})
    assert spec.talk is not None
    assert (spec.talk.titles_in_lexical, spec.talk.chapter_in_lexical, spec.talk.passage_in_lexical) == (1, 0, 0)
    assert not any("keywords" in name for name in spec.talk.model_dump())


def test_the_default_of_adapted_weights_is_not_stored() -> None:
    """An earlier version of the service can then read what this version has declared."""
    assert not {"adapt_weights", "piece_features"} & set(IndexSpec().model_dump(mode="json"))
    fixed = IndexSpec(adapt_weights=False, piece_features=True)
    assert IndexSpec.model_validate(fixed.model_dump(mode="json")) == fixed
