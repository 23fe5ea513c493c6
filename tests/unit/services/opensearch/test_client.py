"""Tests of the paths of OpenSearch requests."""

import pytest

from services.opensearch.client import Call


@pytest.mark.parametrize(
    "path",
    [
        "/books/_search?q=secret", "/books#", "/books/../secret/_doc/1", "/books/..", "/a b", "/a\r\nx: y", "/a\\b",
        "/./x",
    ],
)  # fmt: skip
def test_an_unsafe_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="an OpenSearch path"):
        Call("GET", path)


@pytest.mark.parametrize(
    "path", ["/p-a.g000001,p-b.g000001/_msearch", "/p-*/_mapping", "/a/_doc/..%2Fx%3Fq", "/a/_doc/x..y"]
)
def test_names_and_patterns_are_accepted_as_paths(path: str) -> None:
    assert Call("GET", path).path == path
