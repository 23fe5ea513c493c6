"""Sort keys give the same order in OpenSearch and among candidates."""

import random
from typing import Any

from query_api.schemas.search_request import SortKey
from query_api.search.sorting import SortField, build_sort, parse_sort, sort_documents
from query_api.search.validation import read_short
from services.index_spec import FieldType

FIELDS: dict[str, FieldType] = {"year": "number", "genre": "keyword", "lent": "boolean"}


def keys(*texts: str) -> tuple[SortField, ...]:
    members = read_short(None, texts, ())["sort"]
    return parse_sort([SortKey.model_validate(key) for key in members], FIELDS, scored=True)


def test_the_sort_member_ends_with_score_and_sequence_number() -> None:
    assert build_sort(keys("year:desc", "genre"), scored=True) == [
        {"metadata.year": {"order": "desc", "missing": "_last"}},
        {"metadata.genre": {"order": "asc", "missing": "_last"}},
        {"_score": "desc"},
        {"_seq_no": "asc"},
    ]
    assert build_sort(keys("_score:asc"), scored=True) == [{"_score": "asc"}, {"_seq_no": "asc"}]
    assert build_sort((), scored=False) == [{"ingested_at": "desc"}, {"_seq_no": "asc"}]


def test_missing_values_come_last_and_equal_values_by_score() -> None:
    ranking = [("a", 5.0), ("b", 4.0), ("c", 3.0), ("d", 2.0), ("e", 1.0)]
    values: dict[str, dict[str, list[Any]]] = {
        "a": {}, "b": {"year": [1.0]}, "c": {"year": [2.0, 0.0], "lent": [True]}, "d": {"year": [1.0]},
        "e": {"lent": [False, True]},
    }  # fmt: skip
    assert "".join(name for name, _ in sort_documents(ranking, keys("year"), values)) == "cbdae"
    assert "".join(name for name, _ in sort_documents(ranking, keys("year:desc"), values)) == "cbdae"
    assert "".join(name for name, _ in sort_documents(ranking, keys("lent", "year"), values)) == "ecbda"
    assert "".join(name for name, _ in sort_documents(ranking, keys("_score:asc"), values)) == "edcba"
    assert "".join(name for name, _ in sort_documents(ranking, keys("year", "_score:asc"), values)) == "cdbea"
    assert sort_documents(ranking, (), values) == ranking


def test_candidates_are_sorted_by_all_keys() -> None:
    chance = random.Random(3)
    ranking = [(f"d{n}", float(100 - n)) for n in range(100)]
    values = {name: {"year": [float(chance.randrange(4))], "genre": [chance.choice("abc")]} for name, _ in ranking}
    expected = sorted(ranking, key=lambda pair: (values[pair[0]]["genre"][0], -values[pair[0]]["year"][0], -pair[1]))
    assert sort_documents(ranking, keys("genre", "year:desc"), values) == expected
