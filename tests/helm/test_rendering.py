"""The chart renders as committed, passes Helm's linter, and is valid for every supported Kubernetes version."""

import copy
import functools
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate.utils as kubernetes
import pytest
import yaml

from infra.helm.__main__ import GOLDEN, generate_files
from infra.helm.rendering import CHART, KubernetesObject, RenderedRelease, lint_chart, list_cases, load_case_values

REPOSITORY = Path(__file__).resolve().parents[2]
CRDS = {file.stem: json.loads(file.read_text()) for file in (Path(__file__).parent / "crds").glob("*.json")}
HEAD = yaml.safe_load((CHART / "Chart.yaml").read_text())


def minor(version: str) -> int:
    return int(version.split(".")[1])


# From the version that Chart.yaml requires to the newest version with an installed schema.
OLDEST = minor(HEAD["kubeVersion"].removeprefix(">="))
VERSIONS = sorted({minor(version) for version in kubernetes.all_versions() if minor(version) >= OLDEST})

each_case = pytest.mark.parametrize("name", list_cases())


@pytest.fixture(autouse=True, scope="module")
def _schemas_are_read_once() -> Any:
    read = kubernetes.schema_contents
    kubernetes.schema_contents = functools.cache(read)
    yield
    kubernetes.schema_contents = read


def complaint(one: KubernetesObject, version: int) -> str | None:
    """Return the complaint of Kubernetes 1.`version` (or of a custom resource's definition) about an object."""
    try:
        if one["kind"] in CRDS:
            jsonschema.Draft202012Validator(CRDS[one["kind"]]).validate(one)
        else:
            kubernetes.validate(one, f"1.{version}", strict=True)
    except (jsonschema.ValidationError, kubernetes.SchemaNotFoundError) as error:
        return f"{one['kind']} {one['metadata']['name']}: {error.message}"
    return None


@each_case
def test_it_renders_as_committed(name: str, releases: dict[str, RenderedRelease]) -> None:
    """The committed files show a reviewer the effect of a chart change on four releases."""
    assert (GOLDEN / f"{name}.yaml").read_text() == releases[name].text, "if that is what you want: make chart"


def test_there_is_no_golden_file_too_many() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(list_cases())


def test_what_is_generated_is_up_to_date() -> None:
    """The schema comes from settings, the README from comments, the rules and dashboard from infra/monitoring."""
    wanted = generate_files()
    assert [path.name for path in wanted if path.read_text() != wanted[path]] == [], "make chart"


@each_case
def test_helm_lint_strict_finds_nothing(name: str) -> None:
    assert lint_chart(load_case_values(name)) == []


def test_helm_lint_would_find_something(tmp_path: Path) -> None:
    shutil.copytree(CHART, tmp_path / "chart")
    with (tmp_path / "chart" / "templates" / "settings.yaml").open("a") as file:
        file.write("  bad: {{ .Values.nothing.at.all }}\n")
    assert lint_chart(load_case_values("minimal"), tmp_path / "chart")


def test_every_supported_version_is_looked_at() -> None:
    assert len(VERSIONS) >= 11
    assert list(range(VERSIONS[0], VERSIONS[-1] + 1)) == VERSIONS
    assert f"Kubernetes 1.{VERSIONS[0]} to 1.{VERSIONS[-1]}" in (CHART / "README.md").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version: int, releases: dict[str, RenderedRelease]) -> None:
    assert [said for name in list_cases() for one in releases[name].objects if (said := complaint(one, version))] == []


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_a_member_that_is_spelt_wrongly_is_noticed(version: int, releases: dict[str, RenderedRelease]) -> None:
    for one in {one["kind"]: one for one in releases["everything"].objects if "spec" in one}.values():
        wrong = copy.deepcopy(one)
        wrong["spec"]["replicaz"] = 1
        assert complaint(wrong, version)


def test_kinds_below_the_oldest_version_would_be_noticed(releases: dict[str, RenderedRelease]) -> None:
    """Chart.yaml requires 1.27, because earlier disruption budgets have no unhealthyPodEvictionPolicy."""
    assert [said for one in releases["minimal"].objects if (said := complaint(one, 25))]


def test_the_chart_carries_our_version() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert (HEAD["version"], HEAD["appVersion"]) == (version, version)


def test_it_needs_no_other_chart() -> None:
    """A missing declared chart would stop the rendering, even if it is disabled."""
    assert "dependencies" not in HEAD
