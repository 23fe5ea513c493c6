"""Names and declarations of indexes."""

import pytest
from pydantic import ValidationError

from services.errors import InvalidInput
from services.index_spec import IndexNames, IndexSpec, validate_index_name


@pytest.mark.parametrize("name", ["docs", "a", "0", "my-docs_2", "x" * 100])
def test_usable_names(name: str) -> None:
    assert validate_index_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "Docs", "-a", "_a", "a.b", "a b", "a/b", "a*", "a,b", "a#", "a:b", "..", "x" * 101, "é", "a\n", "_all", "a?b"],
)
def test_names_that_opensearch_refuses_or_reads_as_something_else(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate_index_name(name)
    assert caught.value.code == "invalid_index_name"


def test_no_index_of_a_user_meets_one_of_ours() -> None:
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
def test_declarations_that_are_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        IndexSpec.model_validate(body)
