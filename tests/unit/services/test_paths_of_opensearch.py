"""What a request to OpenSearch may name, whatever a name in it is made of."""

import pytest

from services.index_spec import IndexNames
from services.opensearch.client import Call
from services.opensearch.point_in_time import close_point_in_time_call


@pytest.mark.parametrize(
    "path",
    [
        "/books/_search?q=secret", "/books#", "/books/../secret/_doc/1", "/books/..", "/a b", "/a\r\nx: y", "/a\\b",
        "/./x",
    ],
)  # fmt: skip
def test_a_path_stays_the_path_that_was_meant(path: str) -> None:
    with pytest.raises(ValueError, match="an OpenSearch path"):
        Call("GET", path)


@pytest.mark.parametrize(
    "path", ["/p-a.g000001,p-b.g000001/_msearch", "/p-*/_mapping", "/a/_doc/..%2Fx%3Fq", "/a/_doc/x..y"]
)
def test_names_and_patterns_are_paths(path: str) -> None:
    assert Call("GET", path).path == path


def test_one_snapshot_is_closed_and_never_all() -> None:
    assert b"c25hcA" in (close_point_in_time_call("c25hcA").body or b"")
    with pytest.raises(ValueError, match="every point in time"):
        close_point_in_time_call("_all")


@pytest.mark.parametrize(
    ("physical", "one"),
    [
        ("p-books.g000001", True), ("p-books.g123456789", True), ("p-books.g1", False), ("p-books2.g000001", False),
        ("q-books.g000001", False), ("p-books.g000001,p-secret.g000001", False), ("p-books.g000001/_search", False),
        ("p-books.g00000*", False), ("p-books.g000001\n", False), ("p-books.g٠٠٠٠٠٠", False),
    ],
)  # fmt: skip
def test_names_of_generations(physical: str, one: bool) -> None:
    assert IndexNames("p").is_generation("books", physical) is one
