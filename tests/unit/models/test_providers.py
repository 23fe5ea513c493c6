"""Where an exported encoder runs."""

import onnxruntime
import pytest

from models.onnx_encoder import choose_providers
from services.encoders.manifest import WEIGHTS_ROOT, read_manifest

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("precision", "available", "wanted"),
    [
        ("int8", [CUDA, CPU], [CPU]),
        ("fp16", [CUDA, CPU], [CUDA, CPU]),
        ("fp32", [CUDA, CPU], [CUDA, CPU]),
        ("fp16", [CPU], [CPU]),
        (None, [CUDA, CPU], [CPU]),
    ],
)
def test_half_precision_goes_to_a_gpu_and_int8_stays(
    monkeypatch: pytest.MonkeyPatch, precision: str | None, available: list[str], wanted: list[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    shipped = read_manifest(WEIGHTS_ROOT / "bootstrap-minilm-l6")
    assert choose_providers(shipped.model_copy(update={"precision": precision})) == wanted
