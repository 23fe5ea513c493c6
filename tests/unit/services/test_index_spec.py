"""Tests of index names and declarations."""

import pytest
from pydantic import ValidationError

from services.errors import InvalidInput
from services.index_spec import IndexNames, IndexSpec, validate_index_name


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
