"""Run the requests of infra/docker/README.md as written, except for the address. Each does as the text says."""

import json
import subprocess
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "infra" / "docker" / "README.md"


def test_loading_and_searching_as_written(api_url: str) -> None:
    section = README.read_text().split("## Load and search")[1].split("\n## ")[0]
    script = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    assert script.count("curl ") == 3
    script = script.replace("http://127.0.0.1:8010", api_url).replace("curl ", "curl --fail-with-body -sS -w '\\n' ")
    done = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert answers[1]["accepted"] == ["1", "2"]
    assert answers[2]["index"] == "notes"
