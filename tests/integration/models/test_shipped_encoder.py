"""The shipped encoder with its real weights: golden tokens, independence of the batch, refusals."""

import hashlib
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.onnx_encoder import OnnxSparseEncoder
from models.registry import load_encoder
from services.encoders.manifest import WEIGHTS_ROOT, FileRecord, compute_fingerprint, describe_file
from services.encoders.query_table import QueryTable
from services.errors import ConfigurationError, InvalidInput, Overloaded

NAME = "projected-minilm-l6"
HERE = Path(__file__).parent
# Other processors round int8 sums in another order, or saturate them. Tokens and weights stay within these limits.
TOLERANCE = 0.3

TEXTS = [
    "Create a temporary directory. It is removed when the context exits.",
    "sleep(seconds): suspend execution of the calling thread for the given number of seconds.",
    "An experimental study of a wing in a propeller slipstream at supersonic speed.",
    "hello",
    "Die Katze sitzt auf dem Dach.",
    "word " * 200,
    "The patient was treated with antibiotics for an infection of the lung. " * 8,
]


@pytest.fixture(scope="module")
def encoder() -> OnnxSparseEncoder:
    found = load_encoder(NAME, threads=2)
    assert isinstance(found, OnnxSparseEncoder)
    return found


def golden() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((HERE / "data" / "golden.json").read_text())
    return found


@pytest.mark.parametrize("case", golden(), ids=lambda case: case["text"][:30])
def test_golden_pieces(encoder: OnnxSparseEncoder, case: dict[str, Any]) -> None:
    (vector,) = encoder.encode(encoder.windows(case["text"]))
    found = {encoder.piece(i): w for i, w in zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)}
    for piece, weight in case["top"].items():
        assert found.get(piece, 0.0) == pytest.approx(weight, abs=TOLERANCE), piece
    # No token outside the golden list outweighs its first tokens.
    assert max(found, key=found.__getitem__) in case["top"]


def test_a_vector_does_not_depend_on_its_batch(encoder: OnnxSparseEncoder) -> None:
    windows = [window for text in TEXTS for window in encoder.windows(text)]
    together = [vector.pack() for vector in encoder.encode(windows)]
    assert [encoder.encode([window])[0].pack() for window in windows] == together
    assert [vector.pack() for vector in encoder.encode(windows[::-1])][::-1] == together


def test_threads_get_the_same_vectors(encoder: OnnxSparseEncoder) -> None:
    windows = [window for text in TEXTS for window in encoder.windows(text)]
    wanted = [vector.pack() for vector in encoder.encode(windows)]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(encoder.encode, [windows] * 8):
            assert [vector.pack() for vector in found] == wanted


def test_special_and_placeholder_pieces_never_weigh(encoder: OnnxSparseEncoder) -> None:
    for vector in encoder.encode([window for text in [*TEXTS, "[SEP] [MASK]"] for window in encoder.windows(text)]):
        assert 0 < len(vector) <= encoder.manifest.top_k
        for piece in map(encoder.piece, vector.ids.tolist()):
            assert piece not in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
            assert not piece.startswith("[unused")


def test_a_window_without_pieces_has_the_empty_vector(encoder: OnnxSparseEncoder) -> None:
    blank, word = encoder.encode([*encoder.windows(" \n "), *encoder.windows("word")])
    assert len(blank) == 0
    assert len(word) > 0


def test_the_longest_window_is_encoded_and_a_longer_one_refused(encoder: OnnxSparseEncoder) -> None:
    (window,) = encoder.windows("word " * 510, 510, 0)
    assert len(window.piece_ids) == 510
    assert len(encoder.encode([window])[0]) > 0
    with pytest.raises(InvalidInput) as caught:
        encoder.windows("word", 511, 0)
    assert caught.value.code == "bad_window"


def test_the_query_table_belongs_to_the_encoder_and_finds_by_meaning(encoder: OnnxSparseEncoder) -> None:
    table = QueryTable.load(WEIGHTS_ROOT / NAME)
    assert table.fingerprint == encoder.fingerprint
    query = table.encode("make a temporary folder", 64).by_id()
    scores = [encoder.encode(encoder.windows(text))[0].dot(query) for text in TEXTS]
    assert scores.index(max(scores)) == 0


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WEIGHTS_ROOT / NAME, tmp_path / NAME))


def rewrite(directory: Path, name: str, content: bytes) -> None:
    """Replace a file and update the manifest to match."""
    (directory / name).write_bytes(content)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"][name] = describe_file(directory / name).model_dump()
    manifest["fingerprint"] = compute_fingerprint({n: FileRecord(**f) for n, f in manifest["files"].items()})
    (directory / "manifest.json").write_text(json.dumps(manifest))


def load_error(directory: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_encoder(str(directory))
    return caught.value.code


def test_one_changed_byte_is_refused(copy: Path) -> None:
    content = bytearray((copy / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.onnx").write_bytes(bytes(content))
    assert load_error(copy) == "corrupt_model_file"


def test_a_missing_model_is_refused(copy: Path) -> None:
    (copy / "model.onnx").unlink()
    assert load_error(copy) == "missing_model_file"


def test_a_changed_manifest_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["model.onnx"]["sha256"] = hashlib.sha256(b"other").hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert load_error(copy) == "bad_manifest"


def test_a_file_that_is_no_model_is_refused(copy: Path) -> None:
    rewrite(copy, "model.onnx", b"not a model")
    assert load_error(copy) == "bad_model"


def test_weights_that_are_not_finite_name_the_window(copy: Path) -> None:
    rewrite(copy, "model.onnx", (HERE / "data" / "not_finite.onnx").read_bytes())
    broken = load_encoder(str(copy))
    with pytest.raises(InvalidInput, match="characters 0 to 4") as caught:
        broken.encode([*broken.windows(" "), *broken.windows("word")])
    assert caught.value.code == "not_finite_weights"
    assert caught.value.extra == {"window": 1}


SCARCE = """
import resource
from models.registry import load_encoder
encoder = load_encoder("projected-minilm-l6", threads=1, batch_pieces=8192)
windows = encoder.windows("a boundary layer grows along the surface of a wing " * 12)[:1] * 40
alone = encoder.encode(windows[:1])[0].pack()
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
# Half of what these windows take at once.
resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20, resource.RLIM_INFINITY))
assert [vector.pack() for vector in encoder.encode(windows)] == [alone] * 40
assert encoder.batch_pieces < 8192 / 2, encoder.batch_pieces
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process's memory is Linux's")
def test_out_of_memory_halves_the_budget_and_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", SCARCE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "out of memory on the CPU: batches have" in done.stderr


def test_a_window_that_does_not_fit_by_itself_may_be_tried_again(
    encoder: OnnxSparseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(error: Exception) -> None:
        def run(_: object) -> None:
            raise error

        monkeypatch.setattr(encoder, "run", run)

    windows = encoder.windows("word")
    fails(MemoryError())
    with pytest.raises(Overloaded) as caught:
        encoder.encode(windows)
    assert caught.value.code == "out_of_memory"
    fails(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        encoder.encode(windows)


def test_loading_the_encoder_needs_no_training_library() -> None:
    code = (
        "import sys; from models.registry import load_encoder; load_encoder('projected-minilm-l6', threads=1)\n"
        "assert not {'torch', 'transformers', 'onnx', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
