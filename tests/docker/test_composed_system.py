"""Run the services of docker-compose.yml as processes in the images' folders, and encode and find a document.

Commands, environments, health checks and stop times come from the file. Addresses and ports are those of this machine.
The model process holds the dense encoder that needs no files.
"""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.ports import find_free_port
from tests.docker import bare_image
from tests.docker import dockerfile_text as dockerfile
from tests.docker.test_compose_file import OURS, REPOSITORY, interpolated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DOCKERFILE = REPOSITORY / "infra" / "docker" / "Dockerfile"


@dataclass
class Service:
    """A service of the file in the image that it names."""

    name: str
    told: dict[str, Any]
    image: bare_image.BareImage
    process: subprocess.Popen[str]
    log: Path

    def is_healthy(self) -> bool:
        assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()}"
        return self.image.run(*self.told["healthcheck"]["test"][1:], check=False).returncode == 0

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(int(self.told["stop_grace_period"].removesuffix("s")))


@pytest.fixture
def addresses(opensearch_url: str, redis_url: str) -> dict[str, str]:
    """Return the values of the file that differ on this machine."""
    api, models = find_free_port(), find_free_port()
    return {
        "http://opensearch:9200": opensearch_url,
        "redis://redis:6379/0": redis_url,
        "http://models:8020": f"http://127.0.0.1:{models}",
        "0.0.0.0": "127.0.0.1",  # noqa: S104
        "8010": str(api),
        "8020": str(models),
    }


@pytest.fixture
def system(
    api_image: bare_image.BareImage,
    worker_image: bare_image.BareImage,
    addresses: dict[str, str],
    index_prefix: str,
    tmp_path: Path,
) -> Iterator[dict[str, Service]]:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    # set beside the file, as a user would
    text = text.replace("${SPARSEWELL_MODEL_URL:-}", "http://models:8020")
    text = re.sub(r"\$\{SPARSEWELL_MODEL_ENCODERS:-[^}]*\}", "standin-dense", text)
    told = yaml.safe_load(interpolated(text))["services"]
    stages = dockerfile.read(DOCKERFILE)
    started: dict[str, Service] = {}
    try:
        for name in OURS:
            image = {"api": api_image, "worker": worker_image}[told[name]["build"]["target"]]
            own = {key: addresses.get(value, value) for key, value in told[name]["environment"].items()}
            # compose passes on a variable without a value where the caller has it
            own = {key: value for key, value in own.items() if value is not None}
            own |= {"SPARSEWELL_INDEX_PREFIX": index_prefix, "SPARSEWELL_METRICS_PORT": str(find_free_port())}
            inside = bare_image.BareImage(image.root, image.environment | own, image.directory)
            entry = dockerfile.last(stages, told[name]["build"]["target"], "ENTRYPOINT").listed()
            assert entry
            program = image.root / "opt/sparsewell/bin" / entry[0]
            log = tmp_path / name
            with log.open("w") as output:
                process = subprocess.Popen(
                    [program, *entry[1:], *told[name]["command"]],
                    env=inside.environment, cwd=inside.directory, stdout=output, stderr=subprocess.STDOUT, text=True,
                )  # fmt: skip
            started[name] = Service(name, told[name], inside, process, log)
        yield started
    finally:
        for service in started.values():
            service.process.kill()
            service.process.wait()


def test_a_document_is_encoded_found_and_reranked(
    system: dict[str, Service], addresses: dict[str, str], eventually: Callable[..., None]
) -> None:
    for service in system.values():
        eventually(service.is_healthy, 90, f"{service.name} is healthy")
    with httpx.Client(base_url=f"http://127.0.0.1:{addresses['8010']}", timeout=30, trust_env=False) as api:
        api.put("/v1/indexes/notes", json={"dense": "standin-dense"}).raise_for_status()
        documents = [
            {"id": "1", "text": "A physician prescribes drugs against infections."},
            {"id": "2", "text": "A carpenter repairs old chairs."},
        ]
        api.post("/v1/indexes/notes/documents", json=documents).raise_for_status()
        eventually(lambda: api.get("/v1/indexes/notes").json()["documents"]["encoded"] == 2, 90, "both are encoded")
        request = {"query": "which medicine does the doctor give", "mode": "sparse", "rerank": {"top": 10}}
        answer = api.post("/v1/indexes/notes/search", json=request).raise_for_status().json()
        assert answer["rerank"]["applied"] is True
        assert "1" in [hit["id"] for hit in answer["hits"]]
    ended = {name: service.stop() for name, service in system.items()}
    assert {name: status for name, status in ended.items() if status not in (0, -15)} == {}


def test_the_worker_image_can_reindex(worker_image: bare_image.BareImage) -> None:
    """The chart's Job and users in a worker's pod reindex there. The libraries of training are not in the image."""
    code = "import cli.reindex, cli.relevance.reindex_gate, cli.indexes, indexer.reindex.run, indexer.reindex.plan"
    assert worker_image.run("python", "-c", code, check=False).stderr == ""
    assert "torch" in worker_image.run("python", "-c", "import torch", check=False).stderr
    # the chart's pod for commands uses the same image: the command fails only because the API is away
    keys = ["keys", "create", "shop", "--scope", "search", "--filter", '{"field": "a", "is": 1}']
    for command in (keys, ["dead-letters", "list", "notes"], ["keys", "list"]):
        said = worker_image.run("sparsewell", *command, "--api", "http://127.0.0.1:9", check=False).stderr
        assert "api_unavailable" in said or "No API answers" in said, said
