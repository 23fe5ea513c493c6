"""Build the images and run the system of docker-compose.yml from them.

One module, because the images are built once for it and pytest-xdist gives a module to one process.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.images import build_command, image_name
from infra.licences import find_refused_packages
from infra.opensearch.configuration import build_index_template
from tests.docker.composed import COMPOSE_FILE, Composed, write_override
from tests.docker.conftest import REPOSITORY, REVISION
from tests.docker.engine import Image, Podman, run_checked
from tests.docker.stand_ins import make_opensearch, make_redis

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
OURS = ("api", "worker", "sweeper", "models")
EVERY = ("opensearch", "redis", *OURS)
# The upgrade starts from images of this commit if the checkout has it, or else from the same code under another label.
FORMER_COMMIT = "SPARSEWELL_FORMER_COMMIT"
FORMER_LABEL = "fedcba9876543210fedcba9876543210fedcba98"
# Upper bound of the API's image above its base. The image added 276 MB before decision 0259, and 133 MB after it.
MOST_MEGABYTES = 145

Eventually = Callable[[Callable[[], object], float, str], None]
DISTRIBUTIONS = "import importlib.metadata as m\nfor each in m.distributions(): print(f'{each.name}=={each.version}')"


def python(image: Image, code: str) -> str:
    return image.run("python", "-c", code).stdout.strip()


def test_the_command_and_the_application_load(api_image: Image) -> None:
    assert "Serve the REST API" in api_image.run("sparsewell", "api", "--help").stdout
    assert python(api_image, "import query_api.app as app; print(app.__file__)").startswith("/opt/sparsewell/")


def test_an_image_has_the_user_the_labels_and_the_commit(images: dict[str, Image]) -> None:
    for target, image in images.items():
        told = image.configuration["Config"]
        assert told["User"] == "10001:10001"
        assert told["Labels"]["org.opencontainers.image.revision"] == REVISION
        assert f"SPARSEWELL_COMMIT={REVISION}" in told["Env"]
        assert image.configuration["Healthcheck"]["Test"] == ["CMD", "python", "-m", "infra.health", target]


def test_both_images_share_the_layer_of_their_packages(images: dict[str, Image], base_image: str) -> None:
    base = Image(images["api"].podman, base_image, Path()).layers
    api, worker = images["api"].layers, images["worker"].layers
    shared = [one for one, other in zip(api, worker, strict=False) if one == other]
    assert len(shared) == len(base) + 2  # the account, and the packages
    assert len(shared) < min(len(api), len(worker))


def test_the_image_of_the_api_is_small(api_image: Image, base_image: str) -> None:
    inside = api_image.configuration["Size"] - Image(api_image.podman, base_image, Path()).configuration["Size"]
    assert inside / 1e6 < MOST_MEGABYTES


def test_the_environment_is_the_locked_one(images: dict[str, Image]) -> None:
    for target, lock in (("api", "base"), ("worker", "worker")):
        lines = (REPOSITORY / "requirements" / f"{lock}.txt").read_text().splitlines()
        locked = {line.split()[0].lower().replace("_", "-") for line in lines if "==" in line}
        installed = python(images[target], DISTRIBUTIONS).split()
        ours = {each for each in installed if each.startswith("sparsewell==")}
        assert len(ours) == 1
        assert {each.lower().replace("_", "-") for each in set(installed) - ours} <= locked


def test_the_bill_of_materials_names_what_is_in_it(images: dict[str, Image]) -> None:
    for image in images.values():
        bill = json.loads((image.root / "opt/sparsewell/share/sparsewell/sbom.cdx.json").read_text())
        named = {f"{one['name']}=={one['version']}" for one in [*bill["components"], bill["metadata"]["component"]]}
        assert named == set(python(image, DISTRIBUTIONS).split())
        assert all("purl" in one for one in bill["components"])
        assert bill["metadata"]["component"]["type"] == "application"
        # ignore the parts that differ between builds
        assert "serialNumber" not in bill
        assert "timestamp" not in bill["metadata"]


def test_the_list_of_licences_has_their_texts(api_image: Image) -> None:
    file = "opt/sparsewell/share/sparsewell/licences.json"
    listed = {one["Name"]: one for one in json.loads((api_image.root / file).read_text())}
    assert "Apache License" in listed["aiohttp"]["LicenseText"]
    assert find_refused_packages(listed.values()) == []
    assert api_image.run("python", "-m", "infra.licences", f"/{file}").stdout.endswith("0 not allowed.\n")


def test_the_tools_of_the_build_stay_behind(images: dict[str, Image]) -> None:
    for image in images.values():
        names = {path.name for path in (image.root / "opt/sparsewell").rglob("bin/*")}
        assert not {"cyclonedx-py", "pip-licenses", "pip", "uv"} & names
        assert not (image.root / "build").exists()


def test_bytecode_does_not_depend_on_the_time_of_the_build(images: dict[str, Image]) -> None:
    for image in images.values():
        compiled = list((image.root / "opt/sparsewell/lib").rglob("*.pyc"))
        assert len(compiled) > 1000
        # bytes 4 to 8: bit 0 says that the file records a hash of the source instead of its time (PEP 552)
        assert {file.read_bytes()[4] for file in compiled} == {1}


def test_our_sources_stay_and_those_of_packages_go(api_image: Image) -> None:
    (packages,) = (api_image.root / "opt/sparsewell/lib").glob("python*/site-packages")
    assert (packages / "query_api" / "app.py").exists()
    assert (packages / "fastapi" / "routing.pyc").exists()
    assert not (packages / "fastapi" / "routing.py").exists()
    # a traceback still names the file
    said = api_image.run("python", "-c", "import yarl; yarl.URL(1)", check=False).stderr
    assert "/site-packages/yarl/_url.py" in said


@pytest.mark.parametrize(
    "module",
    [
        "onnxruntime", "celery", "torch", "transformers", "indexer", "models.registry", "pip", "setuptools", "examples",
        "benchmarks", "tests", "sparsewell_client", "grpc", "huggingface_hub",
    ],
)  # fmt: skip
def test_what_has_no_place_in_it_is_absent(api_image: Image, module: str) -> None:
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module.partition('.')[0]!r}) and {module!r})"
    if "." in module:
        code = f"import {module}"
    done = api_image.run("python", "-c", code, check=False)
    assert done.returncode == ("." in module), done.stderr


def test_everything_that_our_code_imports_is_there(images: dict[str, Image]) -> None:
    """Import every module of ours, and the parts of packages that are imported only when they are needed."""
    modules = {"api": "services query_api infra", "worker": "services query_api infra indexer"}
    code = """
import importlib, pkgutil, sys
for name in sys.argv[1].split():
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
        importlib.import_module(module.name)
import botocore.session, jwt, kombu.transport.redis, rich.markdown, rich.syntax, rich.traceback, uvloop
import opentelemetry.exporter.otlp.proto.http.trace_exporter, opensearchpy.helpers.signer
session = botocore.session.get_session()
for service in ("sts", "sso", "sso-oidc", "signin"):
    session.create_client(service, region_name="eu-west-1")
print(rich.syntax.Syntax("1 + 1", "python").highlight("1 + 1").plain)
"""
    for target, image in images.items():
        wanted = code if target == "api" else code.replace("jwt, ", "celery, onnxruntime, ")
        assert image.run("python", "-c", wanted, modules[target]).stdout.strip() == "1 + 1"


def test_of_each_encoder_it_holds_the_query_side_only(api_image: Image) -> None:
    shipped = {path.parent.name for path in (REPOSITORY / "models" / "weights").glob("*/manifest.json")}
    inside = {path.parent.name for path in api_image.root.rglob("models/weights/*/manifest.json")}
    assert shipped == inside
    names = {path.name for path in api_image.root.rglob("models/weights/*/*")}
    tables = {"query_weights.json", "reference_frequencies.json", "dense_query_table.safetensors"}
    assert names == {"manifest.json", "tokenizer.json", *tables}
    assert not [*api_image.root.rglob("*.onnx")]
    assert {path.name for path in api_image.root.rglob("*.safetensors")} == {"dense_query_table.safetensors"}


def test_it_encodes_a_query(api_image: Image) -> None:
    code = """
from services.encoders.dense_query_table import DenseQueryEncoder
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.settings import Settings
directory = resolve_model_directory(Settings.read().encoder)
table = QueryTable.load(directory)
assert table.reference is not None
assert DenseQueryEncoder.load(directory, table).encode("make a temporary folder").shape == (384,)
print(len(table.encode("make a temporary folder", 100).ids))
"""
    assert int(python(api_image, code)) > 2


def test_without_stores_it_serves_the_page_and_is_not_ready(podman: Podman, eventually: Eventually) -> None:
    words = ("--detach", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--env", "SPARSEWELL_ACCESS=open")  # noqa: S108
    container = podman.run("run", *words, image_name("api")).stdout.strip()
    try:
        fetch = (
            "import sys, urllib.request as u; print(u.urlopen('http://127.0.0.1:8010' + sys.argv[1]).read().decode())"
        )

        def answer(path: str) -> str:
            return podman.run("exec", container, "python", "-c", fetch, path, check=False).stdout

        eventually(lambda: answer("/healthz"), 60, "the API answers")
        assert "<html" in answer("/")
        # OpenSearch is away: the API is alive but not ready.
        check = podman.run("exec", container, "python", "-m", "infra.health", "api", check=False)
        assert (check.returncode, check.stdout.strip()) == (1, "api: /readyz answered 503")
    finally:
        podman.run("rm", "--force", "--time", "0", container)


def test_the_worker_image_can_reindex(worker_image: Image) -> None:
    """The chart's Job and users in a worker's pod reindex there. The libraries of training are not in the image."""
    code = "import cli.reindex, cli.relevance.reindex_gate, cli.indexes, indexer.reindex.run, indexer.reindex.plan"
    assert worker_image.run("python", "-c", code, check=False).stderr == ""
    assert "torch" in worker_image.run("python", "-c", "import torch", check=False).stderr
    # the chart's pod for commands uses the same image: the command fails only because the API is away
    keys = ["keys", "create", "shop", "--scope", "search", "--filter", '{"field": "a", "is": 1}']
    for command in (keys, ["dead-letters", "list", "notes"], ["keys", "list"]):
        said = worker_image.run("sparsewell", *command, "--api", "http://127.0.0.1:9", check=False).stderr
        assert "api_unavailable" in said or "No API answers" in said, said


def build_former_images(podman: Podman, base: str, scratch: Path) -> None:
    """Build the images that the upgrade starts from under the tag `former`."""
    commit = os.environ.get(FORMER_COMMIT)
    for target in ("api", "worker"):
        name = f"sparsewell-{target}:former"
        if not commit:
            text = f"FROM {image_name(target)}\nENV SPARSEWELL_COMMIT={FORMER_LABEL}\n"
            podman.run("build", "--format", "docker", "--tag", name, "-", input=text)
            continue
        tree = scratch / "former"
        if not tree.exists():
            tree.mkdir()
            packed = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=True).stdout
            subprocess.run(["tar", "--extract"], cwd=tree, input=packed, check=True)
        command = build_command("podman", target, environment={"PYTHON_IMAGE": base}, revision=FORMER_LABEL)
        command[command.index("--tag") + 1] = name
        run_checked(command, podman.environment, cwd=tree)


@pytest.fixture(scope="module")
def system(
    podman: Podman, base_image: str, images: dict[str, Image], scratch: Path, eventually: Eventually
) -> Iterator[Composed]:
    """Start the system of docker-compose.yml with the former images and the process of models that rerank."""
    assert images
    java = make_opensearch(podman, base_image, f"docker.io/{SERVICES['opensearch']['image']}", scratch)
    make_redis(podman, base_image, f"docker.io/library/{SERVICES['redis']['image']}", scratch)
    build_former_images(podman, base_image, scratch)
    override = scratch / "override.yml"
    chosen = {
        "SPARSEWELL_MODEL_URL": "http://models:8020",
        "SPARSEWELL_MODEL_ENCODERS": "standin-dense",  # the dense encoder that needs no files
        "SPARSEWELL_OPENSEARCH_HEAP": "512m",
        "SPARSEWELL_CACHE_DIR": str(scratch / "models"),
    }
    project = f"sparsewell-{os.getpid()}"
    composed = Composed(podman, project, override, write_override(override, "former"), {**podman.environment, **chosen})
    try:
        composed.up("opensearch", "redis")
        composed.wait(eventually, "opensearch", "redis")
        # The Java runtime of the local stack may lack parts that the real image has.
        template = build_index_template(has_thai=java.has_thai)
        url = f"http://127.0.0.1:{composed.ports['opensearch']}/_index_template/sparsewell-node"
        httpx.put(url, json=template, timeout=60, trust_env=False).raise_for_status()
        composed.up()
        composed.wait(eventually, *OURS)
        yield composed
    finally:
        composed.down()


@pytest.fixture
def api(system: Composed) -> Iterator[httpx.Client]:
    """Return a client of the API's published port."""
    with httpx.Client(base_url=f"http://127.0.0.1:{system.ports['api']}", timeout=30, trust_env=False) as client:
        yield client


def load(api: httpx.Client, index: str, *documents: dict[str, str]) -> None:
    """Create an index if it is missing, and write documents."""
    if api.get(f"/v1/indexes/{index}").status_code == 404:
        api.put(f"/v1/indexes/{index}", json={"dense": "standin-dense"}).raise_for_status()
    api.post(f"/v1/indexes/{index}/documents", json=list(documents)).raise_for_status()


def wait_until_encoded(api: httpx.Client, index: str, number: int, eventually: Eventually) -> None:
    def encoded() -> bool:
        return api.get(f"/v1/indexes/{index}").json()["documents"]["encoded"] == number

    eventually(encoded, 90, f"{number} documents are encoded")


PHYSICIAN = {"id": "1", "text": "A physician prescribes drugs against infections."}
CARPENTER = {"id": "2", "text": "A carpenter repairs old chairs."}
QUESTION = {"query": "which medicine does the doctor give", "mode": "sparse", "rerank": {"top": 10}}


def test_a_document_is_encoded_found_and_reranked(system: Composed, api: httpx.Client, eventually: Eventually) -> None:
    load(api, "notes", PHYSICIAN, CARPENTER)
    wait_until_encoded(api, "notes", 2, eventually)
    answer = api.post("/v1/indexes/notes/search", json=QUESTION).raise_for_status().json()
    assert answer["rerank"]["applied"] is True
    assert "1" in [hit["id"] for hit in answer["hits"]]


@pytest.mark.parametrize("service", EVERY)
def test_a_container_has_no_more_rights_than_the_file_gives(system: Composed, service: str) -> None:
    told, found = SERVICES[service], system.inspect(service)
    host = found["HostConfig"]
    memory = {"m": 2**20, "g": 2**30}
    limits = told["deploy"]["resources"]["limits"]
    assert found["Config"]["User"] == told["user"]
    assert not found["EffectiveCaps"]
    assert "no-new-privileges:true" in host["SecurityOpt"] or "no-new-privileges" in host["SecurityOpt"]
    assert host["ReadonlyRootfs"] is told.get("read_only", False)
    assert host["Memory"] == int(limits["memory"][:-1]) * memory[limits["memory"][-1]]
    assert host["PidsLimit"] == limits["pids"]
    published = [each for ports in found["NetworkSettings"]["Ports"].values() for each in ports or []]
    assert {each["HostIp"] for each in published} <= {"127.0.0.1"}
    # the kernel agrees with podman's description
    status = Path(f"/proc/{found['State']['Pid']}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split()[0] == told["user"].partition(":")[0]
    assert (int(facts["CapEff"], 16), int(facts["CapBnd"], 16), facts["NoNewPrivs"]) == (0, 0, "1")


@pytest.mark.parametrize("service", [*OURS, "redis"])
def test_the_root_file_system_is_read_only(system: Composed, service: str) -> None:
    name = system.container(service)
    refused = system.podman.run("exec", name, "touch", "/opt/new", check=False)
    assert "Read-only file system" in refused.stderr
    system.podman.run("exec", name, "touch", "/tmp/new")  # noqa: S108


def kill_main_process(podman: Podman, container: str) -> None:
    """Kill the first process of a container as the kernel does when the memory is used up."""
    os.kill(int(podman.run("inspect", "--format", "{{.State.Pid}}", container).stdout), signal.SIGKILL)


def test_killed_containers_come_back_and_nothing_is_lost(
    system: Composed, api: httpx.Client, eventually: Eventually
) -> None:
    load(api, "kept", PHYSICIAN)
    # One after the other. podman 4.3 restarted a worker that was killed alone 30 times of 30. It left the worker
    # stopped in 4 of 6 trials that killed Redis within a second after it.
    for name in ("worker", "redis", "opensearch"):
        pid = system.inspect(name)["State"]["Pid"]
        kill_main_process(system.podman, system.container(name))
        system.wait_until_restarted(eventually, name, pid)
        system.wait(eventually, name)
    system.wait(eventually, *EVERY)
    load(api, "kept", CARPENTER)
    wait_until_encoded(api, "kept", 2, eventually)
    answer = api.post("/v1/indexes/kept/search", json=QUESTION).raise_for_status().json()
    assert "1" in [hit["id"] for hit in answer["hits"]]


def test_a_container_without_a_restart_policy_stays_away(podman: Podman, images: dict[str, Image]) -> None:
    """This is the control of the test above."""
    words = ("--detach", "--network", "none", "--no-healthcheck", "--entrypoint", "sleep")
    container = podman.run("run", *words, images["api"].name, "600").stdout.strip()
    try:
        kill_main_process(podman, container)
        podman.run("wait", container)
        time.sleep(1)
        assert podman.run("inspect", "--format", "{{.State.Status}}", container).stdout.strip() == "exited"
    finally:
        podman.run("rm", "--force", container)


def test_an_upgrade_keeps_documents_and_takes_new_ones(
    system: Composed, api: httpx.Client, eventually: Eventually
) -> None:
    """Every process ends in its grace period, and the next worker encodes a document that waits."""
    # The test above may have failed and left the worker away.
    system.up("worker")
    system.wait(eventually, "api", "worker")
    assert api.get("/version").json()["commit"] == FORMER_LABEL
    load(api, "upgraded", PHYSICIAN)
    wait_until_encoded(api, "upgraded", 1, eventually)
    system.compose("stop", "worker")
    load(api, "upgraded", CARPENTER)
    system.compose("stop", *(name for name in OURS if name != "worker"))
    # 143: ended by SIGTERM, as the first process of the container reports it
    assert {system.inspect(name)["State"]["ExitCode"] for name in OURS} <= {0, 143}
    text = system.override.read_text()
    for target in ("api", "worker"):
        text = text.replace(f"sparsewell-{target}:former", image_name(target))
    system.override.write_text(text)
    system.up(*OURS)
    system.wait(eventually, *OURS)
    assert api.get("/version").json()["commit"] == REVISION
    wait_until_encoded(api, "upgraded", 2, eventually)
    answer = api.post("/v1/indexes/upgraded/search", json=QUESTION).raise_for_status().json()
    assert "1" in [hit["id"] for hit in answer["hits"]]
