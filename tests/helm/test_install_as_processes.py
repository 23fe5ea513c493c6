"""A whole release as processes: its Deployments and hooks run, a search finds a document, and all pods stop."""

import copy
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.helm.rendering import KubernetesObject, render_release
from tests.helm.kubelet import Cluster, Pod

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DEPLOYMENTS = {"api", "worker", "sweeper", "models"}


@pytest.fixture
def values(opensearch_url: str, redis_url: str, index_prefix: str) -> dict[str, Any]:
    """Return values with every process, and encoders that need no files."""
    return {
        "opensearch": {"url": opensearch_url},
        "redis": {"url": redis_url},
        "access": {"adminKeySecret": {"name": "keys"}, "modelKeySecret": {"name": "keys"}},
        "encoder": {"name": "standin"},
        "settings": {"INDEX_PREFIX": index_prefix, "SWEEP_INTERVAL": 1},
        "worker": {"concurrency": 1},
        "models": {"enabled": True, "encoders": ["standin-dense"], "drainSeconds": 1},
        "api": {"drainSeconds": 2},
        "indexes": {"declared": {"notes": {"fields": {"year": "number"}, "dense": "standin-dense"}}, "wait": 60},
        "commands": {"enabled": True},
    }


@pytest.fixture
def cluster(values: dict[str, Any], tmp_path: Path) -> Cluster:
    made = {"keys": {"admin-key": secrets.token_hex(32), "model-key": secrets.token_hex(32)}}
    return Cluster(render_release(values).objects, made, tmp_path)


@pytest.fixture
def running(cluster: Cluster) -> Iterator[dict[str, Pod]]:
    """Start the Deployments, and wait until their probes report them ready."""
    pods = {pod.name: pod for pod in cluster.pods("Deployment") if pod.name != "commands"}
    try:
        for pod in pods.values():  # all together, as in Kubernetes
            pod.start()
        for pod in pods.values():
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert probe not in pod.container or pod.succeeds(probe), f"{pod.name} {probe}: {pod.said()}"
        yield pods
    finally:
        for pod in pods.values():
            pod.kill()


def hook(cluster: Cluster, when: str) -> KubernetesObject:
    (job,) = (
        one
        for one in cluster.objects
        if when in one["metadata"].get("annotations", {}).get("helm.sh/hook", "").split(",")
    )
    return job


def test_it_is_installed_used_looked_at_before_an_upgrade_and_removed(
    cluster: Cluster, running: dict[str, Pod], values: dict[str, Any], eventually: Callable[..., None]
) -> None:
    assert set(running) == DEPLOYMENTS
    job = Pod(cluster, hook(cluster, "post-install")).start()
    assert job.finish(90) == 0, job.said()
    assert "notes: created." in job.said()

    key = cluster.secrets["keys"]["admin-key"]
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=cluster.address("api"), timeout=30, trust_env=False, headers=headers) as api:
        documents = [
            {"id": "1", "text": "A physician prescribes drugs against infections.", "metadata": {"year": 2024}},
            {"id": "2", "text": "A carpenter repairs old chairs.", "metadata": {"year": 2023}},
        ]
        api.post("/v1/indexes/notes/documents", json=documents).raise_for_status()
        eventually(lambda: api.get("/v1/indexes/notes").json()["documents"]["encoded"] == 2, 60, "both are encoded")
        request = {"query": "drugs against infections", "mode": "sparse", "rerank": {"top": 10}}
        answer = api.post("/v1/indexes/notes/search", json=request).raise_for_status().json()
        assert answer["hits"][0]["id"] == "1"
        # The API used the model process, with the key that both have.
        assert answer["rerank"]["applied"] is True, answer["rerank"]
        assert httpx.get(f"{cluster.address('api')}/v1/indexes", timeout=30, trust_env=False).status_code == 401
        embedding = httpx.post(f"{cluster.address('models')}/embed", json={"texts": ["a"]}, timeout=30, trust_env=False)
        assert embedding.status_code == 401
        assert all(f'process="{pod.name}"' in pod.metrics() for pod in running.values())
        assert [file for pod in running.values() for file in pod.written_files()] == []

        # The check refuses an upgrade that could not finish, and accepts an upgrade without changes.
        wrong = copy.deepcopy(values)
        wrong["indexes"]["declared"]["notes"]["language"] = "standard"
        for declared, status in ((wrong, 1), (values, 0)):
            later = Cluster(
                render_release(declared, is_upgrade=True).objects, cluster.secrets, cluster.folder, cluster.ports
            )
            check = Pod(later, hook(later, "pre-upgrade")).start()
            assert check.finish(60) == status, check.said()

        # Commands that docs/kubernetes.md shows for this pod.
        (shell,) = (pod for pod in cluster.pods("Deployment") if pod.name == "commands")
        for command in (["reindex", "notes"], ["generations", "rollback", "notes"], ["keys", "list"]):
            done = shell.run(["sparsewell", *command])
            assert done.returncode == 0, done.stderr.decode()

        for name in ("models", "sweeper", "worker"):
            assert running[name].stop() in (0, -15), running[name].said()
        # The API answers requests that arrive while it drains.
        with ThreadPoolExecutor(1) as other:
            stopping = other.submit(running["api"].stop)
            assert api.get("/v1/indexes/notes").is_success
            assert not stopping.done()
            assert stopping.result() in (0, -15), running["api"].said()
    assert all(key not in pod.said() for pod in running.values())


def test_a_process_without_its_secret_does_not_start(cluster: Cluster) -> None:
    """Control: processes read the files of the Secrets."""
    cluster.secrets["keys"]["admin-key"] = "too-short"
    (api,) = (pod for pod in cluster.pods("Deployment") if pod.name == "api")
    assert api.start().finish(30) == 1
    assert "bad_key_file" in api.said()
    assert "too-short" not in api.said()
