"""The workers' encoder on a tiny decoder: Encoder protocol, batches, memory, errors."""

import itertools
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.decoder.encoder import DecoderEncoder
from models.decoder.model import BIAS_FILE, EchoSplade, load_sparse_encoder
from models.encoder import TextWindow
from models.registry import load_encoder
from services.encoders.manifest import compute_fingerprint, describe_file, read_manifest
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector
from services.errors import ConfigurationError, InvalidInput, Overloaded
from tests.training.decoder.tiny_decoder import SENTENCES


@pytest.fixture(scope="module")
def encoder(directory: Path) -> DecoderEncoder:
    found = load_encoder(str(directory), threads=1)
    assert isinstance(found, DecoderEncoder)
    return found


def close(one: SparseVector, other: SparseVector, tolerance: float, top_k: int = 0) -> bool:
    """Tell whether all weights agree, up to `tolerance` and the step between two stored values.

    A vector of `top_k` pieces was cut, so a piece that it lacks may weigh as much as its lightest one. 0: none was cut.
    """
    ids = np.union1d(one.ids, other.ids)
    weights = []
    for vector in (one, other):
        missing = vector.weights.min() if top_k and len(vector) == top_k else 0.0
        stored = dict(zip(vector.ids, vector.weights, strict=True))
        weights.append(np.array([stored.get(i, missing) for i in ids]))
    return bool((np.abs(weights[0] - weights[1]) <= tolerance + weights[0] / 256).all())


def test_it_serves_what_sentence_transformers_computes(directory: Path, encoder: DecoderEncoder) -> None:
    model = load_sparse_encoder(directory, device="cpu")
    for sentence in SENTENCES:
        (window,) = encoder.windows(sentence)
        (vector,) = encoder.encode([window])
        wanted = model.encode_document(sentence, convert_to_sparse_tensor=False)
        heaviest = torch.topk(wanted, encoder.manifest.top_k)
        assert 10 < len(vector) <= encoder.manifest.top_k
        assert close(vector, SparseVector.of(heaviest.indices.numpy(), heaviest.values.numpy()), 1e-5)


def test_the_score_is_the_dot_product_of_table_and_vector(directory: Path, encoder: DecoderEncoder) -> None:
    """The query table gives the same query vectors as SparseEncoder."""
    table, model = QueryTable.load(directory), load_sparse_encoder(directory, device="cpu")
    queries = ["wing of an aeroplane", "Readers return the (library) books", "heat, heat and HEAT"]
    windows = [encoder.windows(sentence)[0] for sentence in SENTENCES]
    vectors = encoder.encode(windows)
    for query in queries:
        query_vector = table.encode(query, 100).by_id()
        dense = model.encode_query(query, convert_to_sparse_tensor=False).numpy()
        assert query_vector == pytest.approx({i: dense[i] for i in dense.nonzero()[0].tolist()})
        for window, vector in zip(windows, vectors, strict=True):
            ids, weights = encoder.run([window.piece_ids])
            stored = dict(zip(ids[0].tolist(), weights[0].tolist(), strict=True))
            score = sum(weight * stored.get(i, 0.0) for i, weight in query_vector.items())
            # Stored weights are truncated: they are at most 0.39 % too low.
            assert score * 0.996 - 1e-4 <= vector.dot(query_vector) <= score + 1e-4


def test_long_texts_are_windowed_and_windows_that_do_not_fit_are_refused(encoder: DecoderEncoder, text: str) -> None:
    windows = encoder.windows(text)
    assert len(windows) > 3
    assert windows[0].start == 0
    assert windows[-1].end == len(text)
    assert all(len(window.piece_ids) <= 24 for window in windows)
    for before, after in itertools.pairwise(windows):
        assert before.start < after.start <= before.end < after.end
        assert text[after.start - 1] in " (" or text[after.start] in ".;("
    # 256 positions hold two copies, and the ids before and between them.
    assert encoder.windows(text, 127, 8)
    with pytest.raises(InvalidInput) as caught:
        encoder.windows(text, 128, 8)
    assert caught.value.code == "bad_window"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.2)])
def test_vectors_hardly_depend_on_the_batch_and_not_on_the_run(
    directory: Path, text: str, dtype: torch.dtype, tolerance: float
) -> None:
    encoder = DecoderEncoder(directory, read_manifest(directory), device="cpu", dtype=dtype, batch_pieces=2048)
    windows = [*encoder.windows(text), *encoder.windows(text, 7, 2), *encoder.windows("wing")]
    together = encoder.encode(windows)
    assert [vector.pack() for vector in encoder.encode(windows)] == [vector.pack() for vector in together]
    for window, vector in zip(windows, together, strict=True):
        assert close(encoder.encode([window])[0], vector, tolerance, encoder.manifest.top_k)
    backwards = encoder.encode(windows[::-1])[::-1]
    assert all(
        close(one, other, tolerance, encoder.manifest.top_k) for one, other in zip(together, backwards, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vectors_on_a_cpu_do_not_depend_on_the_batch(directory: Path, text: str, dtype: torch.dtype) -> None:
    encoder = DecoderEncoder(directory, read_manifest(directory), device="cpu", dtype=dtype)
    windows = [*encoder.windows(text), *encoder.windows(text, 7, 2), *encoder.windows("wing")]
    together = encoder.encode(windows)
    assert [vector.pack() for vector in together] == [encoder.encode([window])[0].pack() for window in windows]
    assert [vector.pack() for vector in encoder.encode(windows[::-1])[::-1]] == [vector.pack() for vector in together]


def test_a_window_without_pieces_has_the_empty_vector(encoder: DecoderEncoder) -> None:
    blank, full = encoder.windows(" \n ")[0], encoder.windows("a wall")[0]
    assert encoder.windows("") == []
    assert encoder.encode([]) == []
    vectors = encoder.encode([blank, full, blank])
    assert [len(vector) > 0 for vector in vectors] == [False, True, False]


def test_special_pieces_and_other_spellings_weigh_nothing(directory: Path, encoder: DecoderEncoder, text: str) -> None:
    excluded = EchoSplade.load(str(directory)).excluded_ids()
    assert {0, 1} <= set(excluded)
    found = {i for vector in encoder.encode(encoder.windows(text)) for i in vector.ids.tolist()}
    assert not found & set(excluded)
    assert all(encoder.piece(i) == encoder.piece(i).lower() for i in found)


class Scarce(DecoderEncoder):
    """An encoder on a device that has memory for `memory` padded positions."""

    memory = 10**9
    on_a_gpu = True
    runs: list[int]

    def run(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        positions = len(rows) * max(self._document.echo.positions(len(row)) for row in rows)
        if positions > self.memory:
            if self.on_a_gpu:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            torch.empty(1 << 60, dtype=torch.uint8)  # raises the error of the CPU's allocator
        self.runs.append(positions)
        return super().run(rows)


@pytest.mark.parametrize("on_a_gpu", [True, False])
def test_out_of_memory_halves_the_budget(
    directory: Path, encoder: DecoderEncoder, text: str, caplog: pytest.LogCaptureFixture, on_a_gpu: bool
) -> None:
    scarce = Scarce(directory, read_manifest(directory), device="cpu", dtype=torch.float32)
    scarce.runs, scarce.memory, scarce.batch_pieces, scarce.on_a_gpu = [], 130, 2048, on_a_gpu
    windows = [*encoder.windows(text), *encoder.windows(text, 9, 2)]
    found = scarce.encode(windows)
    assert all(close(one, other, 1e-5) for one, other in zip(found, encoder.encode(windows), strict=True))
    assert scarce.batch_pieces <= 130
    assert "out of memory" in caplog.text
    before = len(scarce.runs)
    assert scarce.encode(windows)  # the encoder keeps the limit that it learned
    assert len(scarce.runs) - before == before
    scarce.memory = 20
    with pytest.raises(Overloaded) as caught:
        scarce.encode(windows)
    assert caught.value.code == "out_of_memory"


def test_the_device_is_logged(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sparsewell.encoder")
    place = load_encoder(str(directory)).place  # type: ignore[attr-defined]
    (said,) = caplog.messages
    assert said.startswith(f"tiny-mistral computes on {place}")
    assert ("finds no GPU" in said) == (not torch.cuda.is_available())


def test_other_errors_of_the_model_are_raised(
    directory: Path, encoder: DecoderEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(encoder, "run", fails)
    with pytest.raises(RuntimeError, match="shapes"):
        encoder.encode(encoder.windows("a wall"))


def changed(directory: Path, target: Path, name: str, **tensors: torch.Tensor) -> Path:
    """Copy the directory, replace tensors in one file, and update the manifest."""
    shutil.copytree(directory, target)
    save_file({**load_file(target / name), **tensors}, target / name, metadata={"format": "pt"})
    manifest = json.loads((target / "manifest.json").read_text())
    files = {file: describe_file(target / file) for file in manifest["files"]}
    manifest |= {
        "files": {file: found.model_dump() for file, found in files.items()},
        "fingerprint": compute_fingerprint(files),
    }
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def test_weights_that_are_not_finite_are_an_input_error(directory: Path, tmp_path: Path) -> None:
    bias = load_file(directory / BIAS_FILE)["bias"]
    bias[50] = torch.nan
    encoder = load_encoder(str(changed(directory, tmp_path / "nan", BIAS_FILE, bias=bias)))
    windows = [TextWindow(0, 0, ()), *encoder.windows("a wall")]
    with pytest.raises(InvalidInput) as caught:
        encoder.encode(windows)
    assert caught.value.code == "not_finite_weights"
    assert caught.value.extra == {"window": 1}


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "document_side.json", BIAS_FILE, "query_weights.json"]
)
def test_a_changed_file_is_refused(directory: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(directory, tmp_path / "copy")
    path = tmp_path / "copy" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ConfigurationError) as caught:
        load_encoder(str(tmp_path / "copy"))
    assert caught.value.code == "corrupt_model_file"


def test_without_torch_the_registry_names_the_extra(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("models.decoder.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match="needs the package torch") as caught:
        load_encoder(str(directory))
    assert caught.value.code == "missing_extra"
