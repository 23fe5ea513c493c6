"""Build the api image in a folder from the Dockerfile. It holds no model, and the base installation suffices."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.licences import find_refused_packages
from infra.ports import find_free_port
from tests.docker import bare_image
from tests.docker import dockerfile_text as dockerfile

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "infra" / "docker" / "Dockerfile"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def image(api_image: bare_image.BareImage) -> bare_image.BareImage:
    return api_image


@pytest.fixture
def serving(image: bare_image.BareImage) -> Iterator[dict[str, str]]:
    """Run the image's command without OpenSearch and Redis. Yield the environment of the process."""
    closed = find_free_port()
    environment = image.environment | {
        "SPARSEWELL_API_HOST": "127.0.0.1",
        "SPARSEWELL_API_PORT": str(find_free_port()),
        "SPARSEWELL_OPENSEARCH_URL": f"http://127.0.0.1:{closed}",
        "SPARSEWELL_REDIS_URL": f"redis://127.0.0.1:{closed}/0",
    }
    stages = dockerfile.read(DOCKERFILE)
    entry, command = (dockerfile.last(stages, "api", word).listed() for word in ("ENTRYPOINT", "CMD"))
    assert entry
    assert command
    program = image.root / "opt/sparsewell/bin" / entry[0]
    with subprocess.Popen(
        [program, *entry[1:], *command], env=environment, cwd=image.directory, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert "listening" in process.stdout.readline()
        yield environment
        process.terminate()
        assert process.wait(timeout=20) in {0, -15}


def python(image: bare_image.BareImage, code: str) -> str:
    return image.run("python", "-c", code).stdout.strip()


def test_the_command_and_the_application_load(image: bare_image.BareImage) -> None:
    assert "Serve the REST API" in image.run("sparsewell", "api", "--help").stdout
    assert python(image, "import query_api.app as app; print(app.__file__)").startswith(str(image.root))


def test_the_environment_is_the_locked_one(image: bare_image.BareImage) -> None:
    lock = (REPOSITORY / "requirements" / "base.txt").read_text()
    code = "import importlib.metadata as m\nfor each in m.distributions(): print(f'{each.name}=={each.version}')"
    installed = python(image, code).split()
    locked = {line.split()[0].lower().replace("_", "-") for line in lock.splitlines() if "==" in line}
    ours = {each for each in installed if each.startswith("sparsewell==")}
    assert len(ours) == 1
    assert {each.lower().replace("_", "-") for each in set(installed) - ours} <= locked


def test_the_bill_of_materials_names_what_is_in_it(image: bare_image.BareImage) -> None:
    bill = json.loads((image.root / "opt/sparsewell/share/sparsewell/sbom.cdx.json").read_text())
    code = "import importlib.metadata as m\nfor each in m.distributions(): print(f'{each.name}=={each.version}')"
    named = {f"{one['name']}=={one['version']}" for one in [*bill["components"], bill["metadata"]["component"]]}
    assert named == set(python(image, code).split())
    assert all("purl" in one for one in bill["components"])
    assert bill["metadata"]["component"]["type"] == "application"
    # ignore the parts that differ between builds
    assert "serialNumber" not in bill
    assert "timestamp" not in bill["metadata"]


def test_the_list_of_licences_has_their_texts(image: bare_image.BareImage) -> None:
    file = image.root / "opt/sparsewell/share/sparsewell/licences.json"
    listed = {one["Name"]: one for one in json.loads(file.read_text())}
    assert "Apache License" in listed["aiohttp"]["LicenseText"]
    assert find_refused_packages(listed.values()) == []
    assert image.run("python", "-m", "infra.licences", str(file)).stdout.endswith("0 not allowed.\n")


def test_the_tools_of_the_build_stay_behind(image: bare_image.BareImage) -> None:
    assert not {"cyclonedx-py", "pip-licenses", "pip"} & {path.name for path in image.root.rglob("bin/*")}


def test_bytecode_does_not_depend_on_the_time_of_the_build(image: bare_image.BareImage) -> None:
    compiled = list((image.root / "opt/sparsewell/lib").rglob("*.pyc"))
    assert len(compiled) > 1000
    # bytes 4 to 8: bit 0 says that the file records a hash of the source instead of its time (PEP 552)
    assert {file.read_bytes()[4] for file in compiled} == {1}


@pytest.mark.parametrize(
    "module",
    [
        "onnxruntime",
        "celery",
        "torch",
        "transformers",
        "indexer",
        "models.registry",
        "pip",
        "setuptools",
        "examples",
        "benchmarks",
        "tests",
        "sparsewell_client",
    ],
)
def test_what_has_no_place_in_it_is_absent(image: bare_image.BareImage, module: str) -> None:
    done = image.run("python", "-c", f"import {module}", check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_of_each_encoder_it_holds_the_query_side_only(image: bare_image.BareImage) -> None:
    shipped = {path.parent.name for path in (REPOSITORY / "models" / "weights").glob("*/manifest.json")}
    inside = {path.parent.name for path in image.root.rglob("models/weights/*/manifest.json")}
    assert shipped == inside
    names = {path.name for path in image.root.rglob("models/weights/*/*")}
    tables = {"query_weights.json", "reference_frequencies.json", "dense_query_table.safetensors"}
    assert names == {"manifest.json", "tokenizer.json", *tables}
    assert not [*image.root.rglob("*.onnx")]
    assert {path.name for path in image.root.rglob("*.safetensors")} == {"dense_query_table.safetensors"}


def test_it_encodes_a_query(image: bare_image.BareImage) -> None:
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
    assert int(python(image, code)) > 2


def test_it_serves_the_page_and_tells_its_health(image: bare_image.BareImage, serving: dict[str, str]) -> None:
    address = f"http://127.0.0.1:{serving['SPARSEWELL_API_PORT']}"
    with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
        assert "<html" in client.get("/").text
        assert client.get("/healthz").status_code == 200
    started = time.monotonic()
    check = dockerfile.last(dockerfile.read(DOCKERFILE), "api", "HEALTHCHECK").rest.partition("CMD ")[2]
    result = bare_image.BareImage(image.root, serving, image.directory).run(*json.loads(check), check=False)
    # OpenSearch is away: the API is alive but not ready.
    assert (result.returncode, result.stdout.strip()) == (1, "api: /readyz answered 503")
    assert time.monotonic() - started < 20
