"""Policies for the objects of a release. Each policy yields its complaints."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from infra.helm.rendering import KubernetesObject
from services.web.http_server import GRACE_SECONDS

Policy = Callable[[list[KubernetesObject]], Iterator[str]]
WORKLOADS = ("Deployment", "StatefulSet", "Job")


def workloads(objects: list[KubernetesObject]) -> Iterator[KubernetesObject]:
    return (one for one in objects if one["kind"] in WORKLOADS)


def of_kind(objects: list[KubernetesObject], *kinds: str) -> list[KubernetesObject]:
    return [one for one in objects if one["kind"] in kinds]


def pod(workload: KubernetesObject) -> KubernetesObject:
    spec: KubernetesObject = workload["spec"]["template"]["spec"]
    return spec


def pod_labels(workload: KubernetesObject) -> dict[str, str]:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def named(one: KubernetesObject) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def containers(objects: list[KubernetesObject]) -> Iterator[tuple[KubernetesObject, KubernetesObject]]:
    for one in workloads(objects):
        for container in pod(one).get("initContainers", []) + pod(one)["containers"]:
            yield one, container


def runs_as_nobody(objects: list[KubernetesObject]) -> Iterator[str]:
    for one in workloads(objects):
        context = pod(one).get("securityContext", {})
        if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) < 1:
            yield f"{named(one)} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{named(one)} has no seccomp profile"


def has_no_rights(objects: list[KubernetesObject]) -> Iterator[str]:
    for one, container in containers(objects):
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{named(one)} may gain rights"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{named(one)} keeps capabilities"


def is_read_only(objects: list[KubernetesObject]) -> Iterator[str]:
    for one, container in containers(objects):
        # OpenSearch writes its keystore and its logs into its program's directory.
        if container["name"] == "opensearch":
            continue
        if container["securityContext"].get("readOnlyRootFilesystem") is not True:
            yield f"{named(one)} can write to its root file system"


def has_nothing_of_the_node(objects: list[KubernetesObject]) -> Iterator[str]:
    for one in workloads(objects):
        if {"hostNetwork", "hostPID", "hostIPC"} & set(pod(one)):
            yield f"{named(one)} shares a name space with the node"
        if any("hostPath" in volume for volume in pod(one).get("volumes", [])):
            yield f"{named(one)} mounts a folder of the node"


def cannot_speak_to_kubernetes(objects: list[KubernetesObject]) -> Iterator[str]:
    for one in workloads(objects):
        if pod(one).get("automountServiceAccountToken") is not False:
            yield f"{named(one)} is given a token"
    for one in of_kind(objects, "ServiceAccount"):
        if one.get("automountServiceAccountToken") is not False:
            yield f"{named(one)} is mounted by default"
    yield from (f"{named(one)} gives rights" for one in objects if "Role" in one["kind"])


def gets_no_variables_of_services(objects: list[KubernetesObject]) -> Iterator[str]:
    """Complain about service links: a Service named sparsewell-api would set SPARSEWELL_API_PORT to tcp://...."""
    for one in workloads(objects):
        if pod(one).get("enableServiceLinks") is not False:
            yield f"{named(one)} gets variables of services"


def says_what_it_needs(objects: list[KubernetesObject]) -> Iterator[str]:
    for one, container in containers(objects):
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
            yield f"{named(one)} does not say what it needs"


def is_probed(objects: list[KubernetesObject]) -> Iterator[str]:
    for one, container in containers(objects):
        # The pod for commands gets no requests, and its idle shell cannot hang.
        if one["kind"] == "Job" or container["name"] == "commands":
            continue
        wanted = (
            {"livenessProbe"} if container["name"] == "sweeper" else {"startupProbe", "livenessProbe", "readinessProbe"}
        )
        if missing := wanted - set(container):
            yield f"{named(one)} has no {', '.join(sorted(missing))}"


def is_not_killed_for_others(objects: list[KubernetesObject]) -> Iterator[str]:
    """Complain about restarts for a lost backend: they do not help, and all pods would restart at once."""
    for one, container in containers(objects):
        probe = container.get("livenessProbe", {})
        check = probe.get("httpGet", {}).get("path", "") + " ".join(probe.get("exec", {}).get("command", []))
        if check.startswith("/readyz") or "_cluster/health" in check or check.endswith(("health worker", "health api")):
            yield f"{named(one)} dies of what others lack: {check}"


def _serves(service: KubernetesObject) -> bool:
    """Tell whether a Service has an address. Without an address, it only lets Prometheus find pods."""
    return service["spec"].get("clusterIP") != "None"


def drains(objects: list[KubernetesObject]) -> Iterator[str]:
    """Complain about pods of a Service that end at once. Requests still arrive for a moment."""
    services = [one["spec"]["selector"] for one in of_kind(objects, "Service") if _serves(one)]
    for one, container in containers(objects):
        if one["kind"] != "Deployment" or not any(matches(selector, pod_labels(one)) for selector in services):
            continue
        command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        if command[:1] != ["sleep"]:
            yield f"{named(one)} is cut off while requests come"
        elif pod(one)["terminationGracePeriodSeconds"] < int(command[1]) + GRACE_SECONDS + 2:
            yield f"{named(one)} is killed before it has drained"


def survives_a_drain(objects: list[KubernetesObject]) -> Iterator[str]:
    for budget in of_kind(objects, "PodDisruptionBudget"):
        selector = budget["spec"]["selector"]["matchLabels"]
        chosen = [one for one in workloads(objects) if matches(selector, pod_labels(one))]
        if len(chosen) != 1:
            yield f"{named(budget)} means {len(chosen)} workloads"
        if budget["spec"].get("maxUnavailable") in (None, 0, "0%"):
            yield f"{named(budget)} lets no node be drained"


def spreads(objects: list[KubernetesObject]) -> Iterator[str]:
    for one in of_kind(objects, "Deployment"):
        constraints = pod(one).get("topologySpreadConstraints", [])
        if not any(matches(each["labelSelector"]["matchLabels"], pod_labels(one)) for each in constraints):
            yield f"{named(one)} may lie on one node"


def selects_its_own(objects: list[KubernetesObject]) -> Iterator[str]:
    for one in of_kind(objects, "Deployment", "StatefulSet"):
        selector = one["spec"]["selector"]["matchLabels"]
        chosen = [named(other) for other in workloads(objects) if matches(selector, pod_labels(other))]
        if chosen != [named(one)]:
            yield f"{named(one)} selects {chosen}"


def services_reach_something(objects: list[KubernetesObject]) -> Iterator[str]:
    for service in of_kind(objects, "Service"):
        chosen = [one for one in workloads(objects) if matches(service["spec"]["selector"], pod_labels(one))]
        names = {port["name"] for one in chosen for each in pod(one)["containers"] for port in each.get("ports", [])}
        numbers = {
            port["containerPort"] for one in chosen for each in pod(one)["containers"] for port in each.get("ports", [])
        }
        for port in service["spec"]["ports"]:
            if (len(chosen) != 1 and _serves(service)) or port["targetPort"] not in names | numbers:
                yield f"{named(service)} reaches nothing at {port['targetPort']}"


def is_closed(objects: list[KubernetesObject]) -> Iterator[str]:
    """Complain about pods without a policy for each direction, and about rules that allow all ports or destinations."""
    policies = of_kind(objects, "NetworkPolicy")
    for one in workloads(objects):
        for direction in ("Ingress", "Egress"):
            if not any(
                direction in policy["spec"]["policyTypes"]
                and matches(policy["spec"]["podSelector"]["matchLabels"], pod_labels(one))
                for policy in policies
            ):
                yield f"{named(one)} is open for {direction.lower()}"
    for policy in policies:
        rules = policy["spec"].get("ingress", []) + policy["spec"].get("egress", [])
        if any(not rule.get("ports") for rule in rules):
            yield f"{named(policy)} lets every port through"
        if any(not rule.get("to") for rule in policy["spec"].get("egress", [])):
            yield f"{named(policy)} lets pods reach any address"


def is_pinned(objects: list[KubernetesObject]) -> Iterator[str]:
    for one, container in containers(objects):
        if not re.search(r"(:[\w.-]*\d[\w.-]*|@sha256:[0-9a-f]{64})$", container["image"]):
            yield f"{named(one)} runs whatever {container['image']} is today"


def holds_no_secret(objects: list[KubernetesObject]) -> Iterator[str]:
    yield from (f"{named(one)} is part of the release" for one in of_kind(objects, "Secret"))
    plain = [(named(one), value) for one in of_kind(objects, "ConfigMap") for value in one["data"].values()]
    plain += [(named(one), env.get("value", "")) for one, each in containers(objects) for env in each.get("env", [])]
    yield from (f"{name} names a password" for name, value in plain if re.search(r"://[^/\s]*@", value))


def scales_what_is_there(objects: list[KubernetesObject]) -> Iterator[str]:
    deployments = {one["metadata"]["name"]: one for one in of_kind(objects, "Deployment")}
    scalers = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    targets = [(one, one["spec"]["scaleTargetRef"]["name"]) for one in scalers]
    for one, target in targets:
        if target not in deployments:
            yield f"{named(one)} scales nothing"
        elif "replicas" in deployments[target]["spec"]:
            yield f"{named(one)} is undone by every upgrade: its Deployment has replicas"
    scaled = [target for _, target in targets]
    yield from (f"{name} is scaled by two" for name in set(scaled) if scaled.count(name) > 1)


def mounts_what_it_has(objects: list[KubernetesObject]) -> Iterator[str]:
    for one, container in containers(objects):
        volumes = {volume["name"] for volume in pod(one).get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{named(one)} mounts {mount['name']}, which it has not"


def ends(objects: list[KubernetesObject]) -> Iterator[str]:
    for one in of_kind(objects, "Job"):
        hooks = one["metadata"].get("annotations", {})
        if "activeDeadlineSeconds" not in one["spec"] or pod(one)["restartPolicy"] != "Never":
            yield f"{named(one)} may run for ever"
        if "before-hook-creation" not in hooks.get("helm.sh/hook-delete-policy", ""):
            yield f"{named(one)} is in the way of the next one"


POLICIES: list[Policy] = [
    runs_as_nobody, has_no_rights, is_read_only, has_nothing_of_the_node, cannot_speak_to_kubernetes,
    gets_no_variables_of_services, says_what_it_needs, is_probed, is_not_killed_for_others, drains, survives_a_drain,
    spreads, selects_its_own, services_reach_something, is_closed, is_pinned, holds_no_secret, scales_what_is_there,
    mounts_what_it_has, ends,
]  # fmt: skip
