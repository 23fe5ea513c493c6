"""What do user, password file and Amazon's signature add to a request? Microseconds of the headers alone.

    python -m benchmarks.opensearch_access --json benchmarks/results/opensearch_access.json

The best of five rounds: what the code costs, without what else the machine did.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from botocore.credentials import Credentials

from benchmarks.record import command_line, run
from services.opensearch.access import Access, Amazon, Basic
from services.secret_files import SecretFile

URL = "https://127.0.0.1:9200/_msearch?max_concurrent_searches=2&filter_path=responses"
BODIES = {"2 KB, a search": 2000, "4 MiB, a bulk request": 4 * 1024**2}


def microseconds(access: Access, body: bytes, times: int) -> float:
    """Of one request's headers."""
    best = float("inf")
    for _ in range(5):
        began = perf_counter()
        for _ in range(times):
            access.headers("POST", URL, body)
        best = min(best, (perf_counter() - began) / times)
    return round(best * 1e6, 2)


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """By kind and size of the body."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "password"
        file.write_text("password")
        kinds: dict[str, Access] = {
            "user and password": Basic("user", "password"),
            "password file": Basic("user", SecretFile("OPENSEARCH_PASSWORD_FILE", file)),
            "signature for Amazon": Amazon(Credentials("key", "secret", "token"), "eu-central-1"),
        }
        rows = {
            kind: {
                said: microseconds(access, b"x" * size, given.times if size < 1e6 else 50)
                for said, size in BODIES.items()
            }
            for kind, access in kinds.items()
        }
    for kind, row in rows.items():
        print(f"{kind:>22}: {row}")
    return {"microseconds": rows}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = command_line("opensearch_access", __doc__)
    parser.add_argument("--times", type=int, default=5000, help="requests of a round")
    run("opensearch_access", parser, measured, arguments)


if __name__ == "__main__":
    main()
