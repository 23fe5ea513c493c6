"""What a worker is told that cannot open the generator."""

import sys
from pathlib import Path

import pytest

from models.chapters.podtile.checkpoint import brought
from models.chapters.podtile.opening import open_podtile
from services.errors import ConfigurationError


def test_without_torch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match=r"sparsewell\[train\]") as refused:
        open_podtile(str(tmp_path))
    assert refused.value.code == "missing_library"


def test_a_shipped_model_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "manifest.json").write_text("{}")
    monkeypatch.setattr("models.chapters.podtile.checkpoint.SHIPPED", tmp_path)
    assert brought("shipped") == tmp_path / "shipped"
    for other in ("./shipped", "Shipped"):
        with pytest.raises(ConfigurationError, match=other):
            brought(other)
