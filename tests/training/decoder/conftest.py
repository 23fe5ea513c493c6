"""Tiny model directory that the tests of this folder serve. Without torch, no test here is collected."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["*"]
else:
    import torch

    from models.decoder.model import EchoSplade
    from models.decoder.train import write_model_directory
    from tests.training.decoder.tiny_decoder import SENTENCES, tiny_document


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> "EchoSplade":
    return tiny_document(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="session")
def directory(document: "EchoSplade", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model directory whose query table has a different weight for each piece."""
    out = tmp_path_factory.mktemp("models") / "tiny-mistral"
    weights = np.linspace(0.5, 3.0, document.get_embedding_dimension(), dtype=np.float32)
    write_model_directory(
        document, weights, out, positions=256, top_k=64, window=(24, 4), dtype=torch.float32,
        extra={"licence": "Apache-2.0"},
    )  # fmt: skip
    return out


@pytest.fixture
def text() -> str:
    return " ".join(SENTENCES)
