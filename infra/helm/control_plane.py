"""Server-side apply of rendered releases to a real kube-apiserver.

    python -m infra.helm.control_plane APISERVER ETCD --definitions CRD.yaml... -- tests/helm/golden/*.yaml

Each file is one release and gets its own namespaces. Each object is applied twice, and the second time must change
nothing, as an upgrade of a release to itself changes nothing. The namespaces have the Pod Security level `restricted`,
so a pod that needs more rights causes a warning. A control checks that an invalid object is refused.

infra/helm/validation/build makes the API server (APISERVER=1); etcd is Debian's etcd-server. The tests do not run this,
because that build takes most of an hour (docs/decisions/0219).
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
from infra.ports import LOOPBACK, find_free_port

_APPLY = {"content-type": "application/apply-patch+yaml"}
_SECONDS = 120.0
_RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


class ServerSideApply:
    """Server-side apply of objects, with a record of the answers."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}
        self.applied: Counter[str] = Counter()
        self.refused: list[str] = []
        self.changed: list[str] = []
        self.warnings: set[str] = set()

    def apply(self, manifest: dict[str, Any]) -> None:
        """Apply the object twice, and record whether it was refused or changed by the second time."""
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        versions = []
        for _ in range(2):
            answer = self._send(manifest)
            self.warnings.update(f"{name}: {text}" for text in answer.headers.get_list("warning"))
            if not answer.is_success:
                self.refused.append(f"{name}: {answer.json().get('message', answer.text)[:500]}")
                return
            versions.append(answer.json()["metadata"]["resourceVersion"])
        # The server itself writes the names that it serves into a definition.
        if versions[0] != versions[1] and manifest["kind"] != "CustomResourceDefinition":
            self.changed.append(name)
        self.applied[manifest["kind"]] += 1

    def _send(self, manifest: dict[str, Any]) -> httpx.Response:
        plural, namespaced = self._resource(manifest["apiVersion"], manifest["kind"])
        group = "api" if "/" not in manifest["apiVersion"] else "apis"
        within = f"namespaces/{manifest['metadata']['namespace']}/" if namespaced else ""
        path = f"/{group}/{manifest['apiVersion']}/{within}{plural}/{manifest['metadata']['name']}"
        parameters = {"fieldManager": "helm", "fieldValidation": "Strict"}
        return self._client.patch(path, params=parameters, headers=_APPLY, content=yaml.safe_dump(manifest))

    def _resource(self, version: str, kind: str) -> tuple[str, bool]:
        """Return the plural of a kind, and whether it has a namespace. A new definition takes a moment to be served."""
        for _ in range(60):
            if resource := self._plurals.get((version, kind)):
                return resource
            group = "api" if "/" not in version else "apis"
            answer = self._client.get(f"/{group}/{version}")
            for listed in answer.json().get("resources", []) if answer.is_success else []:
                if "/" not in listed["name"]:
                    self._plurals[version, listed["kind"]] = listed["name"], listed["namespaced"]
            time.sleep(0 if (version, kind) in self._plurals else 0.5)
        raise RuntimeError(f"{version} {kind} is not served")


def load_yaml_objects(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a YAML file."""
    return [manifest for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8")) if manifest]


@contextmanager
def run_control_plane(apiserver: Path, etcd: Path) -> Iterator[httpx.Client]:
    """Run a new, empty API server on loopback and yield an administrator's client. Raises RuntimeError."""
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
                verify=False,  # noqa: S501 (a self-signed certificate on loopback)
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
    raise RuntimeError(f"kube-apiserver did not get ready; the end of its log: {log.read_text()[-2000:]}")


def main() -> int:
    """Apply the files; return 1 if an object is refused or changed, or if the control is accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("apiserver", type=Path)
    parser.add_argument("etcd", type=Path)
    parser.add_argument(
        "--definitions", type=Path, nargs="*", default=[], help="definitions of custom resources, applied first"
    )
    parser.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    version = subprocess.run(
        [arguments.apiserver, "--version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    with run_control_plane(arguments.apiserver, arguments.etcd) as client:
        server = ServerSideApply(client)
        for file in arguments.definitions:
            for manifest in load_yaml_objects(file):
                server.apply(manifest)
        for file in arguments.files:
            _apply_file(server, file)
        control_holds = _rejects_invalid_port(client)
    print(f"{version}: applied twice {sum(server.applied.values())}: {dict(server.applied.most_common())}")
    for title, lines in {"refused": server.refused, "changed by itself": server.changed}.items():
        for line in lines:
            print(f"{title}: {line}")
    for line in sorted(server.warnings):
        print(f"warned: {line}")
    print("control: the invalid object was refused" if control_holds else "CONTROL: the invalid object was accepted")
    return int(bool(server.refused or server.changed or not control_holds))


def _apply_file(server: ServerSideApply, file: Path) -> None:
    objects = load_yaml_objects(file)
    for name in sorted({manifest["metadata"].get("namespace", "default") for manifest in objects}):
        server.apply(_namespace(f"{name}-{file.stem}"))
    for manifest in objects:
        metadata = manifest["metadata"]
        metadata["namespace"] = f"{metadata.get('namespace', 'default')}-{file.stem}"
        server.apply(manifest)


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": _RESTRICTED}}


def _rejects_invalid_port(client: httpx.Client) -> bool:
    """Return whether the server refuses a Service with an invalid port."""
    invalid = ServerSideApply(client)
    ports = [{"port": 88010, "targetPort": "http"}]
    body = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": ports}}
    invalid.apply(body | {"metadata": {"name": "invalid", "namespace": "default"}})
    return len(invalid.refused) == 1


if __name__ == "__main__":
    sys.exit(main())
