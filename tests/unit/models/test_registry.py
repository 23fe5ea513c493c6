"""The stand-in encoder: deterministic, and served like any other."""

import math

import numpy as np
import pytest

from models.registry import EXPANSION_WEIGHT, StandInEncoder, load_encoder
from services.encoders.manifest import WEIGHTS_ROOT
from services.encoders.query_table import QueryTable
from services.encoders.vectors import truncate_weights
from services.errors import ConfigurationError, InvalidInput


@pytest.fixture(scope="module")
def encoder() -> StandInEncoder:
    found = load_encoder("standin")
    assert isinstance(found, StandInEncoder)
    return found


def weights(encoder: StandInEncoder, text: str) -> dict[str, float]:
    (vector,) = encoder.encode(encoder.windows(text))
    return {encoder.piece(i): w for i, w in zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)}


def test_a_piece_weighs_the_logarithm_of_its_count(encoder: StandInEncoder) -> None:
    found = weights(encoder, "tree tree of")
    assert found == {
        "tree": truncate_weights([math.log(3)])[0],
        "of": truncate_weights([math.log(2)])[0],
        "trees": truncate_weights([EXPANSION_WEIGHT * math.log(3)])[0],
    }


def test_encoding_is_deterministic(encoder: StandInEncoder) -> None:
    windows = encoder.windows("The lazy dogs of three towns. " * 100)
    assert len(windows) > 1
    first, second = encoder.encode(windows), load_encoder("standin").encode(list(windows))
    assert [v.pack() for v in first] == [v.pack() for v in second]


def test_vectors_have_at_most_top_k_pieces(encoder: StandInEncoder) -> None:
    text = " ".join(f"{a}{b}" for a in "abcdefghijklmnop" for b in ("cat", "dog", "tree", "house", "river"))
    for vector in encoder.encode(encoder.windows(text, 510, 0)):
        assert len(vector) <= encoder.manifest.top_k
        assert np.isfinite(vector.weights).all()
        assert (vector.weights > 0).all()


def test_a_text_of_unknown_pieces_has_an_empty_vector(encoder: StandInEncoder) -> None:
    assert [len(v) for v in encoder.encode(encoder.windows("🙂 \x00 🙃"))] == [0]
    assert encoder.encode(encoder.windows("")) == []


def test_windows_that_do_not_fit_the_model_are_refused(encoder: StandInEncoder) -> None:
    with pytest.raises(InvalidInput) as caught:
        encoder.windows("text", 511)
    assert caught.value.code == "bad_window"


def test_the_stand_in_directory_has_a_query_table(encoder: StandInEncoder) -> None:
    table = QueryTable.load(WEIGHTS_ROOT / "standin")
    assert table.fingerprint == encoder.fingerprint
    query = table.encode("tree houses", 64)
    matching = encoder.encode(encoder.windows("a house in a tree"))[0].dot(query.by_id())
    assert matching > encoder.encode(encoder.windows("a boat on a lake"))[0].dot(query.by_id())


def test_an_unknown_name_lists_the_known_names() -> None:
    with pytest.raises(ConfigurationError, match="standin") as caught:
        load_encoder("no-such-encoder")
    assert caught.value.code == "unknown_encoder"
