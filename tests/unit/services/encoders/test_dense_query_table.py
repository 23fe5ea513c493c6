"""The dense query table: the vector of a query, and files that are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from services.encoders.dense_query_table import DENSE_TABLE_FILE, DenseQueryEncoder, DenseQueryTable, write_dense_table
from services.encoders.manifest import (
    WEIGHTS_ROOT,
    Manifest,
    compute_fingerprint,
    describe_file,
    read_manifest,
)
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError

ROWS, WIDTH = 30_522, 8
TABLE = np.random.default_rng(3).standard_normal((ROWS, WIDTH)).astype(np.float32)


def write_encoder(directory: Path, width: int = WIDTH) -> Manifest:
    """Write an encoder with the stand-in's tokeniser and query weights, and the table that lies there."""
    standin = WEIGHTS_ROOT / "standin"
    manifest = json.loads((standin / "manifest.json").read_bytes())
    for name in ("tokenizer.json", "query_weights.json"):
        (directory / name).write_bytes((standin / name).read_bytes())
    files = {name: describe_file(directory / name) for name in (*manifest["files"], DENSE_TABLE_FILE)}
    manifest |= {
        "files": {name: record.model_dump() for name, record in files.items()},
        "fingerprint": compute_fingerprint(files),
        "dense": {"width": width, "form": {}},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return read_manifest(directory)


def test_a_query_is_the_normalised_sum_of_its_pieces_rows(tmp_path: Path) -> None:
    write_dense_table(tmp_path / DENSE_TABLE_FILE, TABLE)
    manifest = write_encoder(tmp_path)
    encoder = DenseQueryEncoder.load(tmp_path, QueryTable.load(tmp_path))
    assert encoder is not None
    text = "the wing of the wing"
    ids = QueryTable.load(tmp_path).ids(text)
    wanted = sum(ids.count(piece) ** 0.5 * TABLE[piece] for piece in set(ids))
    vector = encoder.encode(text)
    assert vector is not None
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=0.01)
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-6)
    assert manifest.dense is not None


def test_a_query_without_rows_has_no_vector(tmp_path: Path) -> None:
    table = np.zeros((ROWS, WIDTH), np.float32)
    write_dense_table(tmp_path / DENSE_TABLE_FILE, table)
    write_encoder(tmp_path)
    encoder = DenseQueryEncoder.load(tmp_path, QueryTable.load(tmp_path))
    assert encoder is not None
    assert encoder.encode("wing") is None
    assert encoder.encode("") is None


def test_an_encoder_without_a_table_has_none() -> None:
    standin = WEIGHTS_ROOT / "standin"
    assert DenseQueryTable.load(standin, read_manifest(standin)) is None


CODES, SCALES = np.zeros((ROWS, WIDTH), np.int8), np.ones(ROWS, np.float32)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"codes": CODES}, "scales"),
        ({"codes": CODES[:-1], "scales": SCALES[:-1]}, "30,522 rows of 8 numbers"),
        ({"codes": CODES[:, 1:].copy(), "scales": SCALES}, "30,522 rows of 8 numbers"),
        ({"codes": CODES.astype(np.float32), "scales": SCALES}, "30,522 rows of 8 numbers"),
        ({"codes": CODES, "scales": SCALES * np.nan}, "NaN"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray], reason: str) -> None:
    save_file(tensors, tmp_path / DENSE_TABLE_FILE)
    manifest = write_encoder(tmp_path)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        DenseQueryTable.load(tmp_path, manifest)
    assert caught.value.code == "bad_dense_table"


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / DENSE_TABLE_FILE).write_bytes(b"\x00" * 100)
    manifest = write_encoder(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        DenseQueryTable.load(tmp_path, manifest)
    assert caught.value.code == "bad_dense_table"


def test_the_table_of_another_encoder_is_refused(tmp_path: Path) -> None:
    write_dense_table(tmp_path / DENSE_TABLE_FILE, TABLE)
    manifest = write_encoder(tmp_path)
    write_dense_table(tmp_path / DENSE_TABLE_FILE, -TABLE)
    with pytest.raises(ConfigurationError) as caught:
        DenseQueryTable.load(tmp_path, manifest)
    assert caught.value.code == "corrupt_model_file"
    (tmp_path / DENSE_TABLE_FILE).unlink()
    with pytest.raises(ConfigurationError) as caught:
        DenseQueryTable.load(tmp_path, manifest)
    assert caught.value.code == "missing_model_file"


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        write_dense_table(tmp_path / DENSE_TABLE_FILE, TABLE * np.inf)
    assert caught.value.code == "bad_dense_table"
    assert not list(tmp_path.iterdir())
