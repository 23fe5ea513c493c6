"""Run the README's curl commands."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra.processes import ChildProcess
from services.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text()


def tour() -> list[str]:
    (block,) = re.findall(r"test_readme\.py as it stands -->\n```bash\n(.*?)```", README, re.DOTALL)
    return [line for line in block.splitlines() if line]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"encoder": "projected-minilm-l6"})


def run(line: str, api_url: str) -> Any:
    command = line.replace("localhost:8010", api_url.removeprefix("http://")).replace("curl ", "curl -sS --fail ", 1)
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return json.loads(done.stdout) if done.stdout else None


def test_the_four_lines(api_url: str, worker: ChildProcess) -> None:
    create, ingest, search, delete = tour()
    assert run(create, api_url)["name"] == "notes"
    answer = run(ingest, api_url)
    assert answer["accepted"] == ["1", "2"]
    assert answer["waited"] == {"for": "encoded", "reached": True, "states": {"pending": 0, "encoded": 2, "dead": 0}}
    found = run(search, api_url)
    assert found["hits"][0]["id"] == "1"
    assert found["hits"][0]["why"][0]["contribution"] > 0
    assert run(delete, api_url) is None
