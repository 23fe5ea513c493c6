"""Records of piece frequencies in the system index."""

import orjson
import pytest

from services.encoders.piece_frequencies import PieceCounter
from services.errors import BackendUnavailable, NotFound
from services.opensearch.frequency_records import FrequencyRecord, read_records, require_record


def make_record() -> FrequencyRecord:
    counter = PieceCounter()
    counter.add([3, 5, 5])
    counter.add([5])
    return FrequencyRecord("notes.g000001", "token", 2, "fingerprint", 1000, 2, counter.frequencies())


def test_a_record_is_read_as_it_was_stored() -> None:
    stored = orjson.loads(make_record().source())
    (found,) = read_records({"docs": [{"found": True, "_source": stored}]})
    assert found is not None and found.frequencies is not None
    assert (found.version, found.encoder, found.encoded) == (2, "fingerprint", 2)
    assert found.frequencies.pack() == make_record().frequencies.pack()  # type: ignore[union-attr]
    # without its counts, as the sweeper reads it
    del stored["counts"]
    (found,) = read_records({"docs": [{"found": True, "_source": stored}]})
    assert found is not None and found.frequencies is None


def test_a_missing_record_differs_from_one_that_cannot_be_read() -> None:
    absent = {"docs": [{"found": False}, {"error": {"type": "index_not_found_exception"}}]}
    assert read_records(absent) == [None, None]
    with pytest.raises(NotFound) as missing:
        require_record({"docs": [{"found": False}]})
    assert missing.value.code == "frequencies_not_found"
    with pytest.raises(BackendUnavailable) as unavailable:
        read_records({"docs": [{"error": {"type": "no_shard_available_action_exception"}}]})
    assert unavailable.value.code == "frequencies_unavailable"
