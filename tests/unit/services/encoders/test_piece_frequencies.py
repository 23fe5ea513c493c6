"""Document frequencies of pieces, and query tables adapted to them."""

import base64
import math
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.export.package import write_reference
from services.encoders.manifest import WEIGHTS_ROOT, read_manifest
from services.encoders.piece_frequencies import (
    LARGEST_FACTOR,
    SMALLEST_FACTOR,
    SMOOTHING,
    PieceCounter,
    PieceFrequencies,
)
from services.encoders.query_table import REFERENCE_FILE, QueryTable
from services.errors import ConfigurationError

VOCABULARY = 40


def count(*documents: list[int]) -> PieceFrequencies:
    counter = PieceCounter()
    for document in documents:
        counter.add(document)
    return counter.frequencies()


def test_a_repeated_piece_counts_once_in_a_document() -> None:
    found = count([1, 2, 2], [2, 5], [])
    assert found.documents == 3
    assert dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True)) == {1: 1, 2: 2, 5: 1}


@given(st.lists(st.lists(st.integers(0, VOCABULARY - 1))), st.lists(st.lists(st.integers(0, VOCABULARY - 1))))
def test_factors_are_clipped_ratios_of_bm25s_idf(here: list[list[int]], there: list[list[int]]) -> None:
    own, reference = count(*here), count(*there)
    factors = own.factors(reference, VOCABULARY)

    def idf(documents: list[list[int]], piece: int) -> float:
        n = sum(piece in document for document in documents)
        return math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))

    for piece in range(VOCABULARY):
        ratio = (idf(here, piece) + SMOOTHING) / (idf(there, piece) + SMOOTHING)
        assert factors[piece] == pytest.approx(min(LARGEST_FACTOR, max(SMALLEST_FACTOR, ratio)))
    assert np.isfinite(factors).all()


@given(st.lists(st.lists(st.integers(0, 70_000))))
def test_the_stored_form_keeps_all_counts(documents: list[list[int]]) -> None:
    before = count(*documents)
    after = PieceFrequencies.unpack(before.pack())
    assert (after.documents, after.ids.tolist(), after.counts.tolist()) == (
        before.documents, before.ids.tolist(), before.counts.tolist(),
    )  # fmt: skip


def test_frequencies_of_indexes_combine_by_their_documents() -> None:
    small, large = count([1], [1, 2]), count([2], [3])
    both = PieceFrequencies.combine([(small, 2), (large, 200)])
    assert both.documents == 202
    assert dict(zip(both.ids.tolist(), both.counts.tolist(), strict=True)) == {1: 2, 2: 101, 3: 100}
    whole = PieceFrequencies.combine([(small, 2), (count([3], [3, 4]), 2)])
    assert whole.pack() == count([1], [1, 2], [3], [3, 4]).pack()


def packed(*numbers: int) -> str:
    return base64.b64encode(zlib.compress(np.array(numbers, "<u4").tobytes())).decode()


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"documents": 3},
        {"documents": "many", "counts": packed(1, 1)},
        {"documents": 3, "counts": "no base64!"},
        {"documents": 3, "counts": base64.b64encode(b"not compressed").decode()},
        {"documents": 3, "counts": packed(1, 2, 1)},
        {"documents": 3, "counts": packed(2, 1, 1, 1)},
        {"documents": 3, "counts": packed(1, 1, 1, 1)},
        {"documents": 3, "counts": packed(1, 4)},
        {"documents": 3, "counts": packed(1, 0)},
        {"documents": -1, "counts": packed()},
        {"documents": 3, "counts": 7},
    ],
)
def test_damaged_frequencies_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PieceFrequencies.unpack(members)
    assert caught.value.code == "bad_frequencies"


def test_a_piece_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="piece 40 of 40"):
        count([VOCABULARY]).factors(count(), VOCABULARY)
    with pytest.raises(ConfigurationError, match="piece 40 of 40"):
        count().factors(count([VOCABULARY]), VOCABULARY)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """Return the stand-in encoder with a reference in which every piece of the text is common."""
    directory = tmp_path / "adaptable"
    shutil.copytree(WEIGHTS_ROOT / "standin", directory)
    ids = QueryTable.load(directory).ids("the wing of an engine")
    write_reference(directory, count(*[ids] * 50, *[[]] * 50), {"made.jsonl": 100})
    return directory


def test_the_table_is_adapted_to_an_index(encoder: Path) -> None:
    table = QueryTable.load(encoder)
    assert table.fingerprint == QueryTable.load(WEIGHTS_ROOT / "standin").fingerprint
    [wing], [engine] = table.ids("wing"), table.ids("engine")
    adapted = table.adapt(count(*[[wing]] * 99, [engine]))
    assert table.own_weight(wing) is None
    # A word of every document is worth less here, a rare one more, each by a clipped ratio.
    assert adapted.weight(wing) < table.weight(wing) == adapted.own_weight(wing)
    assert adapted.weight(engine) == pytest.approx(LARGEST_FACTOR * table.weight(engine))
    for piece, weight in adapted.encode("wing engine").by_id().items():
        assert weight == adapted.weight(piece)
    assert adapted.heaviest == max(adapted.weight(piece) for piece in range(table.manifest.vocabulary))
    assert adapted.weight(-1) == adapted.weight(10**6) == 0.0
    # Adapting does not change the table, and pieces without a weight stay without one.
    assert table.encode("wing").weights == QueryTable.load(encoder).encode("wing").weights
    assert adapted.weighted_ids() and set(adapted.weighted_ids()) == set(table.weighted_ids())


def test_a_table_without_a_reference_stays_as_it_is(encoder: Path) -> None:
    plain = QueryTable.load(WEIGHTS_ROOT / "standin")
    assert plain.adapt(count([1], [2])) is plain
    table = QueryTable.load(encoder)
    assert table.adapt(count()) is table


def test_a_changed_reference_is_refused(encoder: Path) -> None:
    (encoder / REFERENCE_FILE).write_bytes(b"{}")
    with pytest.raises(ConfigurationError) as caught:
        QueryTable.load(encoder)
    assert caught.value.code == "corrupt_model_file"


def test_a_missing_reference_costs_the_adaptation_alone(encoder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (encoder / REFERENCE_FILE).unlink()
    table = QueryTable.load(encoder)
    assert table.adapt(count([1], [2])) is table
    assert REFERENCE_FILE in caplog.text


def test_the_shipped_encoder_has_a_reference() -> None:
    directory = WEIGHTS_ROOT / "projected-minilm-l6"
    table = QueryTable.load(directory)
    assert table.reference is not None
    assert table.reference.documents >= 39_000
    [the], [slipstream] = table.ids("the"), table.ids("violin")
    factors = table.reference.factors(table.reference, table.manifest.vocabulary)
    assert factors[the] == factors[slipstream] == 1.0
    assert sum(read_manifest(directory).model_extra["reference_passages"].values()) == table.reference.documents  # type: ignore[index]
