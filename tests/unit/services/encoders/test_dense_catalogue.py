"""Tests of the catalogue of dense encoders, and of their fingerprints."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.encoders.catalogue import STANDIN_NAME, find_dense_identity, list_dense_encoders
from services.encoders.manifest import DenseForm, Pooling, dense_fingerprint
from services.errors import ConfigurationError, InvalidInput
from services.settings import Settings

FILES = {"model.onnx": "a" * 64, "tokenizer.json": "b" * 64}
MINE: dict[str, Any] = {
    "format": "sparsewell-dense/1",
    "name": "mine",
    "width": 8,
    "form": {"pooling": "first"},
    "window": {"pieces": 64, "overlap": 8},
    "licence": "MIT",
    "files": FILES,
}


def test_fetchable_encoders_and_the_stand_in_are_listed() -> None:
    known = list_dense_encoders(Settings())
    assert {STANDIN_NAME, "bge-small-en-v1.5-int8", "all-minilm-l6-v2-int8"} <= known.keys()
    assert "all-minilm-l6-v2-checkpoint" not in known
    assert len({one.identity.fingerprint for one in known.values()}) == len(known)
    bge = find_dense_identity(known, "bge-small-en-v1.5-int8")
    assert bge.width == 384
    assert known[bge.name].form.pooling is Pooling.first
    with pytest.raises(InvalidInput, match="standin-dense") as caught:
        find_dense_identity(known, "word2vec")
    assert caught.value.code == "unknown_dense_encoder"


def test_a_custom_encoder_is_listed(tmp_path: Path) -> None:
    (tmp_path / "dense.json").write_text(json.dumps(MINE))
    one = list_dense_encoders(Settings(dense_encoders=f" {tmp_path} "))["mine"]
    assert one.directory == tmp_path
    assert one.identity.fingerprint == dense_fingerprint(FILES, DenseForm(pooling=Pooling.first))


@pytest.mark.parametrize(
    "changed",
    [{"format": "x"}, {"width": 0}, {"files": {}}, {"files": FILES | {"model.onnx": "?"}}, {"form": {"x": 1}}],
)
def test_an_unusable_encoder_is_named(tmp_path: Path, changed: dict[str, Any]) -> None:
    (tmp_path / "dense.json").write_text(json.dumps(MINE | changed))
    with pytest.raises(ConfigurationError, match=r"dense\.json") as caught:
        list_dense_encoders(Settings(dense_encoders=str(tmp_path)))
    assert caught.value.code == "bad_dense_encoder"


def test_a_directory_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        list_dense_encoders(Settings(dense_encoders=str(tmp_path)))
    assert caught.value.code == "bad_dense_encoder"


def test_the_fingerprint_follows_files_and_form() -> None:
    prints = {
        dense_fingerprint(FILES, DenseForm()),
        dense_fingerprint(FILES | {"model.onnx": "c" * 64}, DenseForm()),
        dense_fingerprint(FILES, DenseForm(query_prefix="query: ")),
        dense_fingerprint(FILES, DenseForm(max_pieces=256)),
    }
    assert len(prints) == 4
    assert dense_fingerprint(dict(reversed(FILES.items())), DenseForm()) in prints
