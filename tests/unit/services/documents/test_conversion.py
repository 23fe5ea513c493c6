"""Stored metadata under a declaration with other types."""

from typing import Any

import pytest

from cli.reindex import describe_misfits
from services.documents.conversion import fit_metadata
from services.encoders.manifest import WindowSettings
from services.errors import InvalidInput
from services.index_spec import EncoderIdentity, FieldType, Generation, IndexSpec
from services.opensearch.reindex import ReindexRecord

OLD: dict[str, FieldType] = {"price": "number", "year": "keyword", "lent": "boolean", "same": "text"}
NEW: dict[str, FieldType] = {"price": "keyword", "year": "number", "lent": "keyword", "same": "text", "more": "date"}


@pytest.mark.parametrize(
    ("stored", "converted"),
    [
        ({"price": 12}, {"price": "12"}),
        ({"price": [0.5, 1e3]}, {"price": ["0.5", "1000.0"]}),
        ({"year": "1999"}, {"year": 1999}),
        ({"year": ""}, {}),
        ({"lent": True, "same": "x"}, {"lent": "true", "same": "x"}),
    ],
)
def test_values_are_converted_on_request(stored: dict[str, Any], converted: dict[str, Any]) -> None:
    assert fit_metadata(stored, OLD, NEW, convert=True) == converted
    with pytest.raises(InvalidInput) as caught:
        fit_metadata(stored, OLD, NEW, convert=False)
    assert caught.value.code == "bad_metadata"


def test_a_value_with_several_readings_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        fit_metadata({"year": "1,999"}, OLD, NEW, convert=True)
    assert caught.value.code == "bad_value"


def test_other_fields_are_not_read() -> None:
    stored = {"same": 3, "gone": object()}
    assert fit_metadata(stored, OLD, NEW, convert=False) == stored


def generation(number: int) -> Generation:
    return Generation(
        index="books", number=number, physical=f"s-books.g{number:06d}", spec=IndexSpec(), created_at="",
        encoder=EncoderIdentity(name="e", fingerprint="f"), window=WindowSettings(pieces=128, overlap=16),
    )  # fmt: skip


def test_misfits_are_listed_with_the_next_step() -> None:
    record = ReindexRecord(
        index="books", source=generation(1), target=generation(2), incompatible=3, incompatible_ids=["a", "b"]
    )
    assert "convert" not in record.model_dump()
    said = describe_misfits(record, {"a": "reason"})
    assert "Repeat the command with --convert" in said
    assert said.splitlines()[1:] == ["  a: reason", "  b: found by an earlier run", "  and 1 more"]
    record.convert = True
    assert record.model_dump()["convert"]
    assert "--convert" not in describe_misfits(record, {})
