"""Generate the blocking client from the asynchronous one. `--check`: write nothing, fail if it is stale."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from unasync import Rule, unasync_files

PACKAGE = Path(__file__).resolve().parent / "src" / "sparsewell_client"
SOURCE, TARGET = PACKAGE / "async_client.py", PACKAGE / "client.py"
NAMES = {"AsyncClient": "Client", "aclose": "close", "asyncio": "time"}


def generated() -> str:
    """Return the source of the blocking client, sorted and formatted like all code of the project."""
    with tempfile.TemporaryDirectory() as folder:
        unasync_files([str(SOURCE)], [Rule(f"{SOURCE.parent}/", f"{folder}/", NAMES)])
        code = (Path(folder) / SOURCE.name).read_text(encoding="utf-8")
    for arguments in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(TARGET), "-"]
        code = subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout
    return code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the blocking client is stale")
    check = parser.parse_args().check
    code = generated()
    if not check:
        TARGET.write_text(code, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != code:
        sys.exit("client.py is stale: run `make client`.")


if __name__ == "__main__":
    main()
