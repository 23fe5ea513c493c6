"""What a worker is told that cannot open the generator."""

import sys
from pathlib import Path

import pytest

from models.chapters.podtile import open_podtile
from models.chapters.podtile_checkpoint import (
    SHIPPED_DIRECTORY,
    STARTING_MODELS,
    read_chapter_manifest,
    resolve_generator_source,
)
from services.errors import ConfigurationError
from services.settings import Settings


def test_without_torch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match=r"\.\[train\]") as refused:
        open_podtile(str(tmp_path))
    assert refused.value.code == "missing_library"


def test_a_shipped_model_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "manifest.json").write_text("{}")
    monkeypatch.setattr("models.chapters.podtile_checkpoint.SHIPPED_DIRECTORY", tmp_path)
    assert resolve_generator_source("shipped") == tmp_path / "shipped"
    for other in ("./shipped", "Shipped"):
        with pytest.raises(ConfigurationError, match=other):
            resolve_generator_source(other)


def test_the_shipped_adapters_are_whole_and_name_their_base() -> None:
    directory = SHIPPED_DIRECTORY / Settings.model_fields["chapter_model"].default
    manifest = read_chapter_manifest(directory)
    assert manifest.base is not None
    assert manifest.base.source in STARTING_MODELS
    assert manifest.licence == "Apache-2.0"
    assert manifest.boundaries == "tiling"
    assert {path.name for path in directory.iterdir()} == {*manifest.files, "manifest.json"}
