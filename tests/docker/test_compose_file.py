"""Check docker-compose.yml without an engine: the specification, the project's rules and the programs' options."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.main import get_command

from cli.main import app
from infra.health import CHECKS
from infra.local_servers import LocalSettings
from services.settings import Settings
from tests.docker import dockerfile_text as dockerfile

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((Path(__file__).parent / "schema" / "compose-spec.json").read_text())
STAGES = dockerfile.read(REPOSITORY / "infra" / "docker" / "Dockerfile")


def interpolated(text: str) -> str:
    """Expand `${NAME:-default}` as compose does when the variable is unset. A variable without a default stays."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


COMPOSE: dict[str, Any] = yaml.safe_load(interpolated((REPOSITORY / "docker-compose.yml").read_text()))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("api", "worker", "sweeper", "models")
PROFILES = {"rerank": {"models"}, "monitoring": {"prometheus", "grafana"}}

each_service = pytest.mark.parametrize("name", SERVICES)
each_of_ours = pytest.mark.parametrize("name", OURS)


def test_it_follows_the_compose_specification() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(COMPOSE)


def test_the_schema_refuses_what_is_wrong() -> None:
    wrong = {"services": {"api": SERVICES["api"] | {"mem_limits": "1g"}}}
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(wrong)


def test_it_has_the_parts_of_the_local_stack() -> None:
    always = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert always == {"opensearch", "redis", "api", "worker", "sweeper"}


def test_the_rest_comes_with_a_profile() -> None:
    found = {
        profile: {name for name, service in SERVICES.items() if profile in service.get("profiles", [])}
        for profile in PROFILES
    }
    assert found == PROFILES


def test_every_variable_has_a_default() -> None:
    assert "${" not in interpolated((REPOSITORY / "docker-compose.yml").read_text())


@each_service
def test_a_service_is_pinned_checked_limited_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-\w+)?", service["image"])
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} < set(service["healthcheck"])
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]


@each_service
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service)


@pytest.mark.parametrize("name", [*OURS, "redis", "prometheus", "grafana"])
def test_the_root_file_system_is_read_only_with_scratch_space(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert any(mount.startswith("/tmp:size=") for mount in SERVICES[name]["tmpfs"])  # noqa: S108


@each_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


def test_ports_are_those_of_the_local_stack() -> None:
    published = {name: SERVICES[name]["ports"][0].split(":")[1] for name in ("opensearch", "redis", "api")}
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert published == {name: str(defaults[f"{name}_port"]) for name in published}


@each_service
def test_volumes_are_named_and_declared(name: str) -> None:
    """A volume may also be a read-only mount of a file of this repository or of models of this machine."""
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, dict):
            assert (volume["type"], volume["read_only"]) == ("bind", True)
        elif volume.startswith("./"):
            source, _, mode = volume.split(":")
            assert (REPOSITORY / source).exists()
            assert mode == "ro"
        else:
            assert volume.split(":")[0] in COMPOSE["volumes"]


@pytest.mark.parametrize("name", ["opensearch", "redis"])
def test_a_store_keeps_its_data_in_a_volume(name: str) -> None:
    assert SERVICES[name]["volumes"]


@pytest.mark.parametrize("name", ["api", "worker", "sweeper"])
def test_a_process_of_ours_waits_for_healthy_stores(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {
        store: {"condition": "service_healthy"} for store in ("opensearch", "redis")
    }


@each_of_ours
def test_a_command_is_one_of_the_command_line(name: str) -> None:
    command = SERVICES[name]["command"]
    assert dockerfile.last(STAGES, SERVICES[name]["build"]["target"], "ENTRYPOINT").listed() == ["sparsewell"]
    found = get_command(app)
    for word in command:
        found = found.commands[word]  # type: ignore[attr-defined]
    assert not hasattr(found, "commands")


@each_of_ours
def test_the_environment_names_settings(name: str) -> None:
    variables = SERVICES[name]["environment"]
    known = {f"SPARSEWELL_{field.upper()}" for field in {*Settings.model_fields, *LocalSettings.model_fields}}
    assert set(variables) <= known


@each_of_ours
def test_the_environment_is_accepted_by_the_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, value or "")  # YAML gives None for an empty value
    settings = Settings.read()
    assert settings.opensearch_url == "http://opensearch:9200"
    assert settings.redis_url == "redis://redis:6379/0"


@each_of_ours
def test_an_image_of_ours_is_built_from_a_stage_and_carries_our_version(name: str) -> None:
    service = SERVICES[name]
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert (REPOSITORY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert service["build"]["target"] in STAGES
    assert service["image"] == f"sparsewell-{service['build']['target']}:{version}"


@each_of_ours
def test_a_health_check_of_ours_asks_the_process_that_runs(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "python", "-m", "infra.health", name]
    assert name in CHECKS


def test_the_sweepers_check_has_the_time_that_it_takes() -> None:
    seconds = int(SERVICES["sweeper"]["healthcheck"]["timeout"].removesuffix("s"))
    defaults = Settings.model_fields
    assert seconds > max(1.2 * defaults["sweep_interval"].default, defaults["opensearch_timeout"].default) + 5


def test_redis_keeps_what_it_took() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_a_heap_fits_its_container() -> None:
    heap = re.search(r"-Xmx(\d+)g", SERVICES["opensearch"]["environment"]["OPENSEARCH_JAVA_OPTS"])
    limit = SERVICES["opensearch"]["deploy"]["resources"]["limits"]["memory"]
    assert heap is not None
    assert int(heap[1]) * 1024 * 2 <= int(limit.removesuffix("m"))


def test_a_prometheus_reads_its_configuration_and_our_rules(tmp_path: Path) -> None:
    """Run Debian's promtool on the configuration with the rules of this repository."""
    text = (REPOSITORY / "infra" / "docker" / "prometheus.yml").read_text()
    rules = REPOSITORY / "infra" / "monitoring" / "rules.yml"
    assert "/etc/prometheus/rules.yml" in text
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace("/etc/prometheus/rules.yml", str(rules)))
    done = subprocess.run(["promtool", "check", "config", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_metrics_of_all_of_ours() -> None:
    (scraped,) = yaml.safe_load((REPOSITORY / "infra" / "docker" / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = scraped["dns_sd_configs"]
    assert set(found["names"]) == set(OURS)
    assert {SERVICES[name]["environment"]["SPARSEWELL_METRICS_PORT"] for name in OURS} == {str(found["port"])}
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"], "else it throws exemplars away"


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    folder = REPOSITORY / "infra" / "docker" / "grafana"
    assert mounts["./infra/docker/grafana"] == "/etc/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards" / "sparsewell.yml").read_text())["providers"]
    assert Path(mounts["./infra/monitoring/dashboard.json"]).parent == Path(provider["options"]["path"])
