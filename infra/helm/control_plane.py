"""Applies what the chart renders to a real kube-apiserver with an etcd, server-side, and says what it answered.

    python -m infra.helm.control_plane APISERVER ETCD --definitions CRD.yaml... -- tests/helm/golden/*.yaml

Every file is a release of its own and comes into namespaces of its own. Each object is applied twice: the second time
nothing may change, as nothing changes when a release is upgraded to itself. Namespaces ask Pod Security for
`restricted`, so that a pod that would need more is warned of. Last, a control: what is wrong must be refused.

infra/helm/validation/build makes the first program (APISERVER=1); Debian's etcd-server is the second. Not part of the
tests, because that compiles for most of an hour.
"""

import argparse
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from infra import processes
from infra.processes import LOOPBACK, find_free_port

_APPLY = {"content-type": "application/apply-patch+yaml"}
_SECONDS = 120.0
_RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


@contextmanager
def run_control_plane(apiserver: Path, etcd: Path) -> Iterator[httpx.Client]:
    """A client of a new, empty one on loopback, as an administrator. Raises RuntimeError when it does not get ready."""
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="sparsewell-control-plane-")))
        store, peers, port, token = find_free_port(), find_free_port(), find_free_port(), secrets.token_hex(16)
        key = folder / "accounts.pem"
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        url = f"http://{LOOPBACK}:{store}"
        commands = {
            "etcd": [
                str(etcd), f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={url}",
                f"--advertise-client-urls={url}", f"--listen-peer-urls=http://{LOOPBACK}:{peers}",
            ],
            "kube-apiserver": [
                str(apiserver), f"--etcd-servers={url}", f"--bind-address={LOOPBACK}", f"--secure-port={port}",
                f"--cert-dir={folder / 'certificates'}", f"--token-auth-file={folder / 'tokens.csv'}",
                "--authorization-mode=RBAC", "--service-account-issuer=https://sparsewell.invalid",
                f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
                "--service-cluster-ip-range=10.0.0.0/24",
            ],
        }  # fmt: skip
        for name, command in commands.items():
            log = folder / f"{name}.log"
            child = processes.start_child(name, command, log, environment={}, directory=folder, tied=True)
            undo.callback(processes.stop_child, child, 30)
        client = undo.enter_context(
            httpx.Client(
                base_url=f"https://{LOOPBACK}:{port}",
                headers={"authorization": f"Bearer {token}"},
                verify=False,  # noqa: S501 (a certificate that it made itself, on loopback)
                timeout=60,
                trust_env=False,
            )
        )
        _until_ready(client, folder / "kube-apiserver.log")
        yield client


def _until_ready(client: httpx.Client, log: Path) -> None:
    last = time.monotonic() + _SECONDS
    while time.monotonic() < last:
        try:
            if client.get("/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"kube-apiserver did not get ready; its last words: {log.read_text()[-2000:]}")


class ServerSideApply:
    """Applies objects, and keeps what was answered."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}
        self.applied: Counter[str] = Counter()
        self.refused: list[str] = []
        self.changed: list[str] = []
        self.warnings: set[str] = set()

    def apply(self, written: dict[str, Any]) -> None:
        """Once, and once more."""
        name = f"{written['kind']} {written['metadata']['name']}"
        versions = []
        for _ in range(2):
            answer = self._send(written)
            self.warnings.update(f"{name}: {one}" for one in answer.headers.get_list("warning"))
            if not answer.is_success:
                self.refused.append(f"{name}: {answer.json().get('message', answer.text)[:500]}")
                return
            versions.append(answer.json()["metadata"]["resourceVersion"])
        # what a definition is served as is written into it by the server itself, in between
        if versions[0] != versions[1] and written["kind"] != "CustomResourceDefinition":
            self.changed.append(name)
        self.applied[written["kind"]] += 1

    def _send(self, written: dict[str, Any]) -> httpx.Response:
        plural, namespaced = self._resource(written["apiVersion"], written["kind"])
        group = "api" if "/" not in written["apiVersion"] else "apis"
        within = f"namespaces/{written['metadata']['namespace']}/" if namespaced else ""
        path = f"/{group}/{written['apiVersion']}/{within}{plural}/{written['metadata']['name']}"
        asked = {"fieldManager": "helm", "fieldValidation": "Strict"}
        return self._client.patch(path, params=asked, headers=_APPLY, content=yaml.safe_dump(written))

    def _resource(self, version: str, kind: str) -> tuple[str, bool]:
        """The name of a kind in paths, and whether it is in a namespace. A definition takes a moment to be served."""
        for _ in range(60):
            found = self._plurals.get((version, kind))
            if found:
                return found
            group = "api" if "/" not in version else "apis"
            answer = self._client.get(f"/{group}/{version}")
            for one in answer.json().get("resources", []) if answer.is_success else []:
                if "/" not in one["name"]:
                    self._plurals[version, one["kind"]] = one["name"], one["namespaced"]
            time.sleep(0 if (version, kind) in self._plurals else 0.5)
        raise RuntimeError(f"{version} {kind} is not served")


def load_yaml_objects(file: Path) -> list[dict[str, Any]]:
    """The objects of a YAML file."""
    return [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one]


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": _RESTRICTED}}


def _apply_file(applying: ServerSideApply, file: Path) -> None:
    objects = load_yaml_objects(file)
    for name in sorted({one["metadata"].get("namespace", "default") for one in objects}):
        applying.apply(_namespace(f"{name}-{file.stem}"))
    for one in objects:
        one["metadata"]["namespace"] = f"{one['metadata'].get('namespace', 'default')}-{file.stem}"
        applying.apply(one)


def _rejects_invalid_port(client: httpx.Client) -> bool:
    """Whether what is wrong is refused: a port that there is none of."""
    wrong = ServerSideApply(client)
    ports = [{"port": 88010, "targetPort": "http"}]
    body = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": ports}}
    wrong.apply(body | {"metadata": {"name": "wrong", "namespace": "default"}})
    return len(wrong.refused) == 1


def main() -> int:
    """The command; 1 where anything is refused or changed, or the control is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("apiserver", type=Path)
    parser.add_argument("etcd", type=Path)
    parser.add_argument("--definitions", type=Path, nargs="*", default=[], help="of custom resources, applied before")
    parser.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    version = subprocess.run([given.apiserver, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    with run_control_plane(given.apiserver, given.etcd) as client:
        applying = ServerSideApply(client)
        for file in given.definitions:
            for one in load_yaml_objects(file):
                applying.apply(one)
        for file in given.files:
            _apply_file(applying, file)
        held = _rejects_invalid_port(client)
    print(f"{version}: applied twice {sum(applying.applied.values())}: {dict(applying.applied.most_common())}")
    for title, lines in {"refused": applying.refused, "changed by itself": applying.changed}.items():
        for line in lines:
            print(f"{title}: {line}")
    for line in sorted(applying.warnings):
        print(f"warned: {line}")
    print("control: what is wrong was refused" if held else "CONTROL: what is wrong was accepted")
    return int(bool(applying.refused or applying.changed or not held))


if __name__ == "__main__":
    sys.exit(main())
