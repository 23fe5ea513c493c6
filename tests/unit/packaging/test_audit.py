"""`make audit` with a stand-in for the vulnerability service."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.ports import find_free_port

REPOSITORY = Path(__file__).resolve().parents[3]
HASH = f"--hash=sha256:{0:064}"

ADVISORY = {
    "id": "PYSEC-2024-1",
    "aliases": ["CVE-2024-1"],
    "summary": "It opens a door.",
    "affected": [
        {
            "package": {"name": "some-package", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.3"}]}],
        }
    ],
}


class Osv(BaseHTTPRequestHandler):
    """The query endpoint of OSV. some-package 2.2 has one advisory; other packages have none."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        hit = (request["package"]["name"], request["version"]) == ("some-package", "2.2")
        body = json.dumps({"vulns": [ADVISORY]} if hit else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write no log line."""


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        server.shutdown()
        thread.join()


def audit(tmp_path: Path, service: str, locks: dict[str, str], accepted: str = "") -> subprocess.CompletedProcess[str]:
    for name, pins in locks.items():
        (tmp_path / name).write_text("".join(f"{pin} {HASH}\n" for pin in pins.split()))
    make = shutil.which("make")
    assert make is not None
    return subprocess.run(
        [
            make,
            "--old-file=.venv/.dev",
            "audit",
            f"BIN={Path(sys.executable).parent}",
            f"LOCKS={' '.join(str(tmp_path / name) for name in locks)}",
            f"ACCEPTED_ADVISORIES={accepted}",
        ],
        cwd=REPOSITORY,
        env=os.environ | {"PIP_AUDIT_OSV_URL": service, "NO_PROXY": "127.0.0.1", "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_lock_file_is_audited_and_a_vulnerable_package_fails(tmp_path: Path, service: str) -> None:
    done = audit(tmp_path, service, {"a.txt": "some-package==2.2", "b.txt": "some-package==2.3 other==1"})
    assert done.returncode != 0
    assert "Found 1 known vulnerability in 1 package" in done.stderr
    assert "No known vulnerabilities found" in done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("some-package"))
    assert row.split() == ["some-package", "2.2", "PYSEC-2024-1", "2.3"]


def test_an_accepted_advisory_passes(tmp_path: Path, service: str) -> None:
    done = audit(tmp_path, service, {"a.txt": "some-package==2.2"}, accepted="CVE-2024-1")
    assert done.returncode == 0, done.stderr
    assert "No known vulnerabilities found, 1 ignored" in done.stderr


def test_without_a_network_the_error_is_one_line(tmp_path: Path) -> None:
    done = audit(tmp_path, f"http://127.0.0.1:{find_free_port()}/v1/query", {"a.txt": "some-package==2.3"})
    assert done.returncode != 0
    assert "Connection refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_pip_audit_reads_the_lock_files() -> None:
    for lock in ("dev", "train", "sbom"):
        command = [Path(sys.executable).parent / "pip-audit", "--disable-pip", "--dry-run", "-s", "osv"]
        file = REPOSITORY / "requirements" / f"{lock}.txt"
        done = subprocess.run([*command, "-r", file], capture_output=True, text=True, check=True)
        assert "would have audited" in done.stderr
