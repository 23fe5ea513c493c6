"""Stored arrays are complete or absent, resume by block, and are never reused for other data."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.training.storage import META_FILE, NamedArrays, load_or_make_rows
from services.errors import ConfigurationError


class Killed(BaseException):
    """Represent the end of the process by a signal."""


def maker(calls: list[int], die_at: int | None = None) -> Callable[[int, int], NamedArrays]:
    def make(start: int, end: int) -> NamedArrays:
        calls.append(start)
        if start == die_at:
            raise Killed
        rows = np.arange(start, end)
        return {"dense": np.stack([rows, rows % 7], axis=1).astype(np.float16), "lengths": rows % 3}

    return make


def same(found: NamedArrays, rows: int) -> None:
    wanted = maker([])(0, rows)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 5000])
def test_blocks_become_one_array(tmp_path: Path, rows: int) -> None:
    calls: list[int] = []
    done: list[int] = []
    same(load_or_make_rows(tmp_path / "x", rows, 4 if rows < 10 else 1024, maker(calls), done=done.append), rows)
    assert done[-1] == rows
    again: list[int] = []
    same(load_or_make_rows(tmp_path / "x", rows, 4, maker(again)), rows)
    assert calls
    assert not again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.lock"]


def test_large_arrays_are_memory_mapped_and_read_only(tmp_path: Path) -> None:
    found = load_or_make_rows(tmp_path / "x", 5000, 1024, maker([]))["dense"]
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def test_a_killed_run_resumes(tmp_path: Path) -> None:
    calls: list[int] = []
    with pytest.raises(Killed):
        load_or_make_rows(tmp_path / "x", 10, 2, maker(calls, die_at=6))
    assert not (tmp_path / "x").exists()
    resumed: list[int] = []
    same(load_or_make_rows(tmp_path / "x", 10, 2, maker(resumed)), 10)
    assert (calls, resumed) == ([0, 2, 4, 6], [6, 8])


def test_a_truncated_block_is_made_again(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        load_or_make_rows(tmp_path / "x", 10, 2, maker([], die_at=6))
    block = sorted((tmp_path / "x.part").glob("*.npz"))[1]
    block.write_bytes(block.read_bytes()[:-40])
    resumed: list[int] = []
    same(load_or_make_rows(tmp_path / "x", 10, 2, maker(resumed)), 10)
    assert resumed == [2, 6, 8]


@pytest.mark.parametrize("rows", [10, 5000])
def test_truncated_or_resized_arrays_are_made_again(tmp_path: Path, rows: int) -> None:
    load_or_make_rows(tmp_path / "x", rows, 2000, maker([]))
    for damage in (_cut, _no_meta, _other_rows):
        damage(tmp_path / "x")
        calls: list[int] = []
        same(load_or_make_rows(tmp_path / "x", rows, 2000, maker(calls)), rows)
        assert calls == list(range(0, rows, 2000)), damage.__name__


def _cut(directory: Path) -> None:
    path = directory / "dense.npy"
    path.write_bytes(path.read_bytes()[:-2])


def _no_meta(directory: Path) -> None:
    (directory / META_FILE).write_text("{")


def _other_rows(directory: Path) -> None:
    meta = json.loads((directory / META_FILE).read_bytes())
    (directory / META_FILE).write_text(json.dumps(meta | {"rows": 9}))


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    load_or_make_rows(tmp_path / "x", 10, 4, maker([]))
    path = tmp_path / "x" / "dense.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    calls: list[int] = []
    same(load_or_make_rows(tmp_path / "x", 10, 4, maker(calls)), 10)
    assert calls == [0, 4, 8]


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=str(tmp_path / "file")) as caught:
        load_or_make_rows(tmp_path / "file" / "x", 10, 4, maker([]))
    assert caught.value.code == "unwritable_directory"
