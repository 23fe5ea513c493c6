"""Every release complies with every policy, and each policy reports an object that violates it."""

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from indexer.runtime import WorkerSettings
from infra import health
from infra.helm.rendering import CHART, KubernetesObject, RenderedRelease, list_cases, load_case_values, render_release
from services.queue.lanes import INGEST_QUEUE, encode_queues, interactive_queue
from services.settings import Settings
from tests.helm import policies

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
PING = ["python", "-m", "infra.health", "worker"]


@pytest.mark.parametrize("name", list_cases())
@pytest.mark.parametrize("policy", policies.POLICIES, ids=lambda policy: policy.__name__)
def test_it_holds(policy: policies.Policy, name: str, releases: dict[str, RenderedRelease]) -> None:
    assert list(policy(releases[name].objects)) == []


def _container(one: KubernetesObject) -> KubernetesObject:
    first: KubernetesObject = policies.pod(one)["containers"][0]
    return first


# Variables that a cluster would take from Secrets.
SECRET = {
    "SPARSEWELL_OPENSEARCH_URL": "https://opensearch:9200",
    "SPARSEWELL_OPENSEARCH_USER": "sparsewell",
    "SPARSEWELL_REDIS_URL": "rediss://:secret@redis:6379/0",
    "SPARSEWELL_REDIS_USER": "sparsewell",
}
GONE = object()
COMPONENT = "selector/matchLabels/app.kubernetes.io~component"
# A policy, an object, a path in the object (from `pod` or `container` of a workload), and the new value there.
BREAKS: list[tuple[policies.Policy, str, str, object]] = [
    (policies.runs_as_nobody, "Deployment search-api", "pod/securityContext", GONE),
    (policies.runs_as_nobody, "Job search-indexes", "pod/securityContext/runAsUser", 0),
    (policies.runs_as_nobody, "Deployment search-worker", "pod/securityContext/seccompProfile", GONE),
    (policies.has_no_rights, "Deployment search-worker", "container/securityContext/allowPrivilegeEscalation", GONE),
    (policies.has_no_rights, "Deployment search-api", "container/securityContext/capabilities", GONE),
    (policies.is_read_only, "Deployment search-api", "container/securityContext/readOnlyRootFilesystem", GONE),
    (policies.has_nothing_of_the_node, "Deployment search-api", "pod/hostNetwork", True),
    (policies.has_nothing_of_the_node, "Deployment search-api", "pod/volumes", [{"name": "x", "hostPath": {}}]),
    (policies.cannot_speak_to_kubernetes, "Deployment search-sweeper", "pod/automountServiceAccountToken", GONE),
    (policies.cannot_speak_to_kubernetes, "ServiceAccount search", "automountServiceAccountToken", GONE),
    (policies.gets_no_variables_of_services, "Job search-indexes", "pod/enableServiceLinks", GONE),
    (policies.says_what_it_needs, "Deployment search-gpu-worker", "container/resources/requests", GONE),
    (policies.is_probed, "Deployment search-worker", "container/startupProbe", GONE),
    (policies.is_probed, "Deployment search-sweeper", "container/livenessProbe", GONE),
    (policies.is_not_killed_for_others, "Deployment search-api", "container/livenessProbe/httpGet/path", "/readyz"),
    (policies.is_not_killed_for_others, "Deployment search-worker", "container/livenessProbe/exec/command", PING),
    (policies.drains, "Deployment search-api", "container/lifecycle", GONE),
    (policies.drains, "Deployment search-models", "pod/terminationGracePeriodSeconds", 15),
    (policies.survives_a_drain, "PodDisruptionBudget search-api", "spec/maxUnavailable", 0),
    (policies.survives_a_drain, "PodDisruptionBudget search-worker", f"spec/{COMPONENT}", GONE),
    (policies.spreads, "Deployment search-worker", "pod/topologySpreadConstraints", GONE),
    (policies.selects_its_own, "Deployment search-api", f"spec/{COMPONENT}", GONE),
    (policies.services_reach_something, "Service search-api", "spec/ports/0/targetPort", "https"),
    (policies.is_closed, "NetworkPolicy search-default", "spec/policyTypes", ["Ingress"]),
    (policies.is_closed, "NetworkPolicy search-default", "spec/podSelector/matchLabels/x", "y"),
    (policies.is_closed, "NetworkPolicy search-api", "spec/ingress/0/ports", GONE),
    (policies.is_closed, "NetworkPolicy search-default", "spec/egress/0/to", GONE),
    (policies.is_pinned, "Deployment search-api", "container/image", "sparsewell-api:latest"),
    (policies.holds_no_secret, "Deployment search-api", "container/env/0/value", "https://me:secret@host"),
    (policies.holds_no_secret, "ConfigMap search-settings", "kind", "Secret"),
    (policies.scales_what_is_there, "Deployment search-api", "spec/replicas", 2),
    (policies.scales_what_is_there, "ScaledObject search-worker", "spec/scaleTargetRef/name", "x"),
    (policies.mounts_what_it_has, "Deployment search-api", "pod/volumes", []),
    (policies.ends, "Job search-indexes", "spec/activeDeadlineSeconds", GONE),
]  # fmt: skip


def put(one: KubernetesObject, place: str, value: object) -> None:
    """Set the value at a path of an object; GONE removes it."""
    whole = place.replace("container/", "pod/containers/0/").replace("pod/", "spec/template/spec/")
    at: Any = one
    *above, last = (part.replace("~", "/") for part in whole.split("/"))
    for part in above:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if value is GONE:
        del at[last]
    else:
        at[last] = value


@pytest.mark.parametrize(("policy", "name", "place", "value"), BREAKS)
def test_it_notices(
    policy: policies.Policy, name: str, place: str, value: object, releases: dict[str, RenderedRelease]
) -> None:
    objects = copy.deepcopy(releases["everything"].objects)
    (broken,) = (one for one in objects if policies.named(one) == name)
    put(broken, place, value)
    assert list(policy(objects))


def test_each_policy_was_seen_to_fail() -> None:
    assert {policy for policy, *_ in BREAKS} == set(policies.POLICIES)


def test_rules_and_dashboard_arrive_as_they_are(releases: dict[str, RenderedRelease]) -> None:
    objects = releases["everything"].objects
    monitoring = CHART.parents[1] / "monitoring"
    (rules,) = policies.of_kind(objects, "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((monitoring / "rules.yml").read_text())
    (dashboard,) = (one for one in objects if policies.named(one) == "ConfigMap search-dashboard")
    assert json.loads(dashboard["data"]["sparsewell.json"]) == json.loads((monitoring / "dashboard.json").read_text())


def _environment(objects: list[KubernetesObject], workload: str) -> dict[str, str]:
    (settings,) = (one for one in objects if policies.named(one).endswith("-settings"))
    (one,) = (each for each in objects if policies.named(each) == workload)
    return settings["data"] | {env["name"]: env.get("value", SECRET.get(env["name"])) for env in _container(one)["env"]}


@pytest.mark.parametrize("name", list_cases())
def test_processes_can_read_their_settings(
    name: str, releases: dict[str, RenderedRelease], monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = releases[name].objects
    for one in policies.of_kind(objects, "Deployment"):
        with monkeypatch.context() as patch:
            for variable, value in _environment(objects, policies.named(one)).items():
                patch.setenv(variable, value)
            assert Settings.read().encoder == _environment(objects, policies.named(one))["SPARSEWELL_ENCODER"]
            WorkerSettings.read()


def test_large_numbers_are_said_as_they_are(releases: dict[str, RenderedRelease]) -> None:
    environment = _environment(releases["production"].objects, "Deployment search-sparsewell-api")
    assert environment["SPARSEWELL_MAX_INGEST_BYTES"] == "268435456"


def test_autoscaling_counts_the_queues_that_workers_serve(releases: dict[str, RenderedRelease]) -> None:
    (scaled,) = policies.of_kind(releases["production"].objects, "ScaledObject")
    counted = [trigger["metadata"]["listName"] for trigger in scaled["spec"]["triggers"]]
    assert counted == [*encode_queues("projected-minilm-l6"), INGEST_QUEUE]
    own = next(one for one in policies.of_kind(releases["everything"].objects, "ScaledObject"))
    assert own["spec"]["triggers"][0]["metadata"]["listName"] == interactive_queue("own")


def test_autoscaling_counts_in_the_redis_of_the_release() -> None:
    keda: dict[str, Any] = {"worker": {"autoscaling": {"kind": "keda"}}}
    own = {"redis": {"url": "rediss://redis.queue.svc:6380/3", "authSecret": {"name": "redis", "userKey": "user"}}}
    objects = render_release(load_case_values("minimal") | keda | own).objects
    (scaled,) = policies.of_kind(objects, "ScaledObject")
    for trigger in scaled["spec"]["triggers"]:
        told = trigger["metadata"]
        assert (told["address"], told["databaseIndex"], told["enableTLS"]) == ("redis.queue.svc:6380", "3", "true")
        assert trigger["authenticationRef"]["name"] == "search-sparsewell-worker"
    (authentication,) = policies.of_kind(objects, "TriggerAuthentication")
    assert [(one["parameter"], one["name"], one["key"]) for one in authentication["spec"]["secretTargetRef"]] == [
        ("password", "redis", "password"),
        ("username", "redis", "user"),
    ]
    (plain,) = policies.of_kind(render_release(load_case_values("minimal") | keda).objects, "ScaledObject")
    assert plain["spec"]["triggers"][0]["metadata"]["enableTLS"] == "false"
    assert "authenticationRef" not in plain["spec"]["triggers"][0]


def _trusted(values: dict[str, Any]) -> tuple[str, dict[str, tuple[str, str]]]:
    """Return whether KEDA uses TLS, and the Secret or ConfigMap and the key of each of its parameters."""
    objects = render_release(
        values | {"worker": {"autoscaling": {"kind": "keda", "keda": {"address": "redis:6379"}}}}
    ).objects
    (scaled,) = policies.of_kind(objects, "ScaledObject")
    (authentication,) = policies.of_kind(objects, "TriggerAuthentication")
    given = [*authentication["spec"].get("secretTargetRef", []), *authentication["spec"].get("configMapTargetRef", [])]
    assert {each["authenticationRef"]["name"] for each in scaled["spec"]["triggers"]} == {"search-sparsewell-worker"}
    (told,) = {each["metadata"]["enableTLS"] for each in scaled["spec"]["triggers"]}
    return told, {each["parameter"]: (each["name"], each["key"]) for each in given}


def test_autoscaling_trusts_the_redis_that_workers_trust() -> None:
    """KEDA checks certificates too. Without our authority it would read no queue length and add no worker."""
    plain, certified = {"url": "rediss://redis:6379/0"}, {"certSecret": {"name": "own"}}
    assert _trusted(load_case_values("minimal") | {"redis": plain | {"ca": {"configMap": "company"}}}) == (
        "true",
        {"ca": ("company", "ca.crt")},
    )
    assert _trusted(
        load_case_values("minimal") | {"redis": plain | certified | {"ca": {"secret": "ca", "key": "ca.pem"}}}
    ) == (
        "true",
        {"ca": ("ca", "ca.pem"), "cert": ("own", "tls.crt"), "key": ("own", "tls.key")},
    )
    # If the address is in a Secret, the certificates imply TLS.
    hidden = {"redis": {"urlSecret": {"name": "redis"}} | certified}
    hidden["networkPolicy"] = {"redis": {"to": [{"podSelector": {}}]}}
    assert _trusted(load_case_values("minimal") | hidden)[0] == "true"


def test_autoscaling_checks_no_certificate_that_workers_do_not_check() -> None:
    keda: dict[str, Any] = {"worker": {"autoscaling": {"kind": "keda"}}, "redis": {"url": "rediss://redis:6379/0"}}
    for verified, said in ((True, None), (False, "true")):
        objects = render_release(load_case_values("minimal") | keda | {"settings": {"REDIS_VERIFY": verified}}).objects
        (scaled,) = policies.of_kind(objects, "ScaledObject")
        assert {each["metadata"].get("unsafeSsl") for each in scaled["spec"]["triggers"]} == {said}


def test_each_part_may_have_an_opensearch_user_of_its_own() -> None:
    """The four roles of docs/opensearch-access.md need a separate user for each part."""
    secrets = {"authSecrets": {"api": "a", "worker": "w"}, "certSecrets": {"operator": "o"}}
    common = {"authSecret": {"name": "all"}, "certSecret": {"name": "cert"}, "url": "https://opensearch:9200"}
    values = {"opensearch": common | secrets, "gpuWorker": {"enabled": True}, "indexes": {"declared": {"notes": {}}}}
    found = {}
    for one, container in policies.containers(render_release(load_case_values("minimal") | values).objects):
        users = {
            env["valueFrom"]["secretKeyRef"]["name"] for env in container["env"] if env["name"].endswith("SEARCH_USER")
        }
        (mounted,) = (volume["projected"] for volume in policies.pod(one)["volumes"] if volume["name"] == "secrets")
        files = {
            item["path"]: each["secret"]["name"] for each in mounted["sources"] for item in each["secret"]["items"]
        }
        assert users == {files["opensearch-password"]}
        assert files["opensearch-cert.pem"] == files["opensearch-key.pem"]
        found[container["name"]] = (files["opensearch-password"], files["opensearch-cert.pem"])
    assert found == {
        "api": ("a", "cert"), "worker": ("w", "cert"), "sweeper": ("all", "o"), "indexes": ("all", "o"),
    }  # fmt: skip


def test_the_sweepers_probe_has_the_time_that_its_check_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "check_process_runs", lambda _command, seconds: str(seconds))
    for settings in ({}, {"OPENSEARCH_TIMEOUT": 60}, {"SWEEP_INTERVAL": 90.5}):
        objects = render_release(load_case_values("minimal") | {"settings": settings}).objects
        (sweeper,) = (one for one in objects if policies.named(one) == "Deployment search-sparsewell-sweeper")
        own = {name.lower(): value for name, value in settings.items()}
        check_seconds = float(str(health.check_sweeper(Settings.model_validate(own))))
        assert _container(sweeper)["livenessProbe"]["timeoutSeconds"] >= check_seconds + 4


def test_what_must_last_has_a_copy_and_a_trial_has_none(releases: dict[str, RenderedRelease]) -> None:
    def replicas(objects: list[KubernetesObject]) -> str:
        (settings,) = (one for one in objects if policies.named(one).endswith("-settings"))
        return str(settings["data"]["SPARSEWELL_REPLICAS"])

    assert replicas(releases["minimal"].objects) == "1"
    assert replicas(releases["trial"].objects) == "0"
    chosen = load_case_values("minimal") | {"settings": {"REPLICAS": 2}}
    assert replicas(render_release(chosen).objects) == "2"


def _cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def _surge(one: KubernetesObject) -> int:
    """Return the pods of a workload during a roll-out, beside those that are there."""
    surge = one["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", 0)
    return math.ceil(int(surge[:-1]) * one["spec"]["replicas"] / 100) if isinstance(surge, str) else int(surge)


def test_a_trial_and_its_roll_out_fit_one_node(releases: dict[str, RenderedRelease]) -> None:
    """A node of 2 cores and 4 GiB, of which Kubernetes itself takes about a tenth."""
    cores = memory = 0.0
    for one in policies.workloads(releases["trial"].objects):
        requests = _container(one)["resources"]["requests"]
        pods = one["spec"]["replicas"] + _surge(one)
        cores += pods * _cores(requests["cpu"])
        memory += pods * _mebibytes(requests["memory"])
    assert cores <= 0.9 * 2
    assert memory <= 0.9 * 4096
    assert not policies.of_kind(releases["trial"].objects, "PodDisruptionBudget")


def test_a_roll_out_ends_within_the_documented_wait(releases: dict[str, RenderedRelease]) -> None:
    """Old pods that hold the room of new ones end first, and then the new ones start."""
    page = (CHART.parents[2] / "docs" / "kubernetes.md").read_text()
    commands = re.findall(r"^helm (?:install|upgrade|rollback) .*$", page, re.MULTILINE)
    assert len(commands) == 3
    assert all(command.endswith("--wait --timeout 10m") for command in commands)
    for release in releases.values():
        for one in policies.of_kind(release.objects, "Deployment"):
            probe = _container(one).get("startupProbe", {"periodSeconds": 0, "failureThreshold": 0})
            start = probe["periodSeconds"] * probe["failureThreshold"]
            deadline = one["spec"].get("progressDeadlineSeconds", 600)
            assert start < deadline <= 600, policies.named(one)
            assert policies.pod(one)["terminationGracePeriodSeconds"] + start < 600, policies.named(one)


@pytest.mark.parametrize("pods", [1, 2, 8, 16])
def test_workers_are_rolled_out_in_few_waves(releases: dict[str, RenderedRelease], pods: int) -> None:
    (worker,) = (one for one in policies.workloads(releases["minimal"].objects) if _container(one)["name"] == "worker")
    update = worker["spec"]["strategy"]["rollingUpdate"]
    surge, unavailable = (int(update[name][:-1]) / 100 for name in ("maxSurge", "maxUnavailable"))
    replaced = math.ceil(pods * surge) + math.floor(pods * unavailable)  # as Kubernetes rounds them
    assert math.ceil(pods / replaced) <= 2


def test_the_api_believes_the_proxies_of_its_ingress(releases: dict[str, RenderedRelease]) -> None:
    def believed(objects: list[KubernetesObject]) -> str | None:
        (api,) = (one for one in policies.of_kind(objects, "Deployment") if _container(one)["name"] == "api")
        return {env["name"]: env.get("value") for env in _container(api)["env"]}.get("FORWARDED_ALLOW_IPS")

    assert believed(releases["minimal"].objects) is None
    assert believed(releases["production"].objects) == "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
    own = {"api": {"trustedProxies": ["10.9.0.0/16"], "httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}}}
    assert believed(render_release(load_case_values("minimal") | own).objects) == "10.9.0.0/16"


def test_an_open_api_answers_for_its_own_names(releases: dict[str, RenderedRelease]) -> None:
    def hosts(objects: list[KubernetesObject]) -> list[str]:
        (settings,) = (one for one in objects if policies.named(one).endswith("-settings"))
        return [name for name in settings["data"].get("SPARSEWELL_ALLOWED_HOSTS", "").split(",") if name]

    assert hosts(releases["minimal"].objects) == []
    service = "search-sparsewell-api.prod"
    assert hosts(releases["trial"].objects) == [service, f"{service}.svc", f"{service}.svc.cluster.local"]
    ingress = {"access": {"mode": "open"}, "api": {"ingress": {"enabled": True, "hosts": ["*.example.com"]}}}
    assert hosts(render_release(load_case_values("minimal") | ingress).objects)[-1] == ".example.com"


def test_a_worker_is_given_the_time_that_a_task_may_take(releases: dict[str, RenderedRelease]) -> None:
    for name in list_cases():
        for one in policies.of_kind(releases[name].objects, "Deployment"):
            if _container(one)["name"] == "worker":
                seconds = policies.pod(one)["terminationGracePeriodSeconds"]
                assert seconds > WorkerSettings.model_fields["task_limit"].default


def _mebibytes(quantity: str) -> float:
    return float(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]


def test_requests_are_no_less_than_what_was_measured(releases: dict[str, RenderedRelease]) -> None:
    objects = {policies.named(one): one for one in releases["minimal"].objects}
    api = _container(objects["Deployment search-sparsewell-api"])["resources"]
    measured = json.loads((RESULTS / "journal_100k.json").read_text())["figures"]["rss_mib"]["max"]
    assert _mebibytes(api["requests"]["memory"]) > measured
    # a body takes at most ten times its size
    bodies = 10 * Settings.model_fields["max_ingest_bytes"].default / 2**20
    assert _mebibytes(api["limits"]["memory"]) > measured + bodies
    worker = objects["Deployment search-sparsewell-worker"]
    processes = int(_environment(list(objects.values()), policies.named(worker))["SPARSEWELL_WORKER_CONCURRENCY"])
    talk = json.loads((RESULTS / "talk-encoding.json").read_text())
    most = max(_peaks(talk))
    assert _mebibytes(_container(worker)["resources"]["requests"]["memory"]) > processes * most


def _peaks(value: object) -> list[float]:
    if isinstance(value, dict):
        own = [value["peak_mib"]] if "peak_mib" in value else []
        return own + [peak for each in value.values() for peak in _peaks(each)]
    return [peak for each in value for peak in _peaks(each)] if isinstance(value, list) else []


def test_an_upgrade_of_settings_restarts_the_pods() -> None:
    def checksum(values: dict[str, object]) -> str:
        objects = render_release(load_case_values("minimal") | values).objects
        (api,) = (one for one in objects if policies.named(one) == "Deployment search-sparsewell-api")
        found: str = api["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        return found

    assert checksum({}) != checksum({"settings": {"PRUNE": 0.1}})


def test_notes_warn_of_what_is_open() -> None:
    notes = render_release(load_case_values("everything") | {"networkPolicy": {"enabled": False}}).notes
    assert "FOR TRIALS ONLY" in notes
    assert "NO NETWORK POLICY" in notes
    assert "OPEN" in render_release(load_case_values("gpu")).notes
    without = render_release(load_case_values("minimal") | {"worker": {"enabled": False}}).notes
    assert "NO WORKERS" in without
    assert not any(
        word in render_release(load_case_values("minimal")).notes
        for word in ("TRIALS", "NO WORKERS", "NO NETWORK", "OPEN")
    )
