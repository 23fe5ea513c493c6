"""When the pieces of a generation are counted again."""

import pytest

from indexer.piece_frequencies import RECOUNT_DAYS, is_due
from services.dates import days_ms
from services.encoders.piece_frequencies import MIN_DOCUMENTS
from services.opensearch.frequency_records import FrequencyRecord

NOW = days_ms(400)


def record(encoded: int, days: float = 0) -> FrequencyRecord:
    return FrequencyRecord("notes.g000001", "token", 1, "fingerprint", NOW - days_ms(days), encoded)


@pytest.mark.parametrize(
    ("stored", "encoded", "due"),
    [
        (None, 0, False),
        (None, MIN_DOCUMENTS - 1, False),
        (None, MIN_DOCUMENTS, True),
        (record(100), 100, False),
        (record(100), 120, False),
        (record(100), 121, True),
        (record(200), 159, True),
        (record(200), 160, False),
        (record(200), MIN_DOCUMENTS - 1, False),
        (record(100, RECOUNT_DAYS + 1), 100, False),
        (record(100, RECOUNT_DAYS + 1), 101, True),
        (record(100, RECOUNT_DAYS - 1), 101, False),
    ],
)
def test_a_count_is_due_after_a_change_by_a_fifth_or_a_week(
    stored: FrequencyRecord | None, encoded: int, due: bool
) -> None:
    assert is_due(stored, encoded, NOW) is due
