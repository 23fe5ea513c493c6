"""A run resumes from the newest complete checkpoint, in its directory or its copy."""

from pathlib import Path

import pytest

from models.training.run_directory import copy_checkpoint, drop_unfinished, last_checkpoint, mark_complete


def make(directory: Path, step: int) -> Path:
    path = directory / f"checkpoint-{step}"
    (path / "document").mkdir(parents=True)
    (path / "document" / "model.safetensors").write_bytes(b"weights of %d" % step)
    (path / "rng_state_1.pth").write_bytes(b"another device still writes this")
    mark_complete(path, step)
    return path


def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, damaged = make(tmp_path, 90), make(tmp_path, 100)
    assert last_checkpoint(tmp_path) == damaged
    (damaged / "rng_state_1.pth").write_bytes(b"whole by now")
    assert last_checkpoint(tmp_path) == damaged
    (damaged / "document" / "model.safetensors").write_bytes(b"weights of 1O0")
    assert last_checkpoint(tmp_path) == good
    assert "checkpoint-100 is damaged (document/model.safetensors)" in caplog.text
    (tmp_path / "checkpoint-110").mkdir()
    drop_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [good]


def test_the_newest_checkpoint_is_copied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (50, 100):
        copy_checkpoint(make(tmp_path / "run", step), tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["checkpoint-100"]
    assert last_checkpoint(tmp_path / "copy") == tmp_path / "copy" / "checkpoint-100"
    (tmp_path / "file").write_text("no directory")
    copy_checkpoint(tmp_path / "run" / "checkpoint-100", tmp_path / "file")
    assert "checkpoint-100 was not copied" in caplog.text
