"""Test the bound of the cached images with a program in the place of podman."""

from pathlib import Path

import pytest

from tests.docker.engine import MOST_BYTES, PRUNES, Podman, bound_storage


@pytest.mark.parametrize("prunes", range(len(PRUNES) + 1))
def test_the_oldest_layers_go_until_the_rest_is_below_the_bound(prunes: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    program = tmp_path / "podman"
    program.write_text(f'#!/bin/sh\necho "$*" >>{log}\n')
    program.chmod(0o755)
    sizes = iter([MOST_BYTES + 1] * prunes + [MOST_BYTES])
    bound_storage(Podman({"PATH": str(tmp_path)}), lambda: next(sizes))
    assert log.read_text().splitlines() == [" ".join(("image prune --force", *words)) for words in PRUNES[:prunes]]
