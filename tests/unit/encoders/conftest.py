"""Model directories for tests: copies of shipped ones, changed on purpose; and the command that looks at them."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import main
from services.encoders.manifest import WEIGHTS_ROOT

Copy = Callable[[str, str], Path]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """`copy(shipped, name)`: a copy of a shipped encoder in a directory of that name."""

    def made(shipped: str, name: str) -> Path:
        return Path(shutil.copytree(WEIGHTS_ROOT / shipped, tmp_path / name))

    return made


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("list")` is `sparsewell encoders list`: exit status, standard output, standard error."""
    monkeypatch.delenv("SPARSEWELL_ENCODER", raising=False)
    monkeypatch.delenv("SPARSEWELL_MORE_ENCODERS", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sparsewell", "encoders", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run
