"""The train extra is installed completely or not at all; otherwise tests/training would be skipped silently."""

import importlib.util

import pytest


def test_the_train_extra_is_installed_whole_or_not_at_all() -> None:
    names = ("torch", "sentence_transformers", "peft", "bm25s", "gguf", "matplotlib", "datasets", "accelerate")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if len(missing) == len(names):
        pytest.skip("tests/training needs the train extra: make setup-train installs it (7 GB)")
    assert not missing
