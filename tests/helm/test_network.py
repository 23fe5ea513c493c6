"""The NetworkPolicies allow the traffic to the addresses in the settings, and the traffic between our pods."""

from typing import Any

import pytest

from infra.helm.rendering import KubernetesObject, RenderedRelease, render_release
from tests.helm import policies
from tests.helm.test_values import MINIMAL, merged

SEARCH = {"matchLabels": {"kubernetes.io/metadata.name": "search"}}
# Client, server and port of each connection between our pods. No other connection is allowed.
ASKED = {("api", "models", 8020), ("indexes", "api", 8010), ("commands", "api", 8010)}


def _block(addresses: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": addresses}}


def _rules(objects: list[KubernetesObject], labels: dict[str, str], direction: str) -> list[dict[str, Any]]:
    """Return the rules of all policies that select a pod."""
    meant = [
        policy["spec"]
        for policy in policies.of_kind(objects, "NetworkPolicy")
        if policies.matches(policy["spec"]["podSelector"]["matchLabels"], labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    assert meant
    return [rule for spec in meant for rule in spec.get(direction.lower(), [])]


def _pods(objects: list[KubernetesObject]) -> dict[str, KubernetesObject]:
    return {
        policies.pod_labels(one)["app.kubernetes.io/component"]: one
        for one in policies.workloads(objects)
        if "app.kubernetes.io/component" in policies.pod_labels(one)
    }


def _lets(rules: list[dict[str, Any]], peers: str, labels: dict[str, str], ports: set[object]) -> bool:
    return any(
        ports & {each["port"] for each in rule["ports"]}
        and (
            peers not in rule
            or any(
                "podSelector" in peer
                and "namespaceSelector" not in peer
                and policies.matches(peer["podSelector"]["matchLabels"], labels)
                for peer in rule[peers]
            )
        )
        for rule in rules
    )


def _reaches(objects: list[KubernetesObject], source: KubernetesObject, target: KubernetesObject, port: int) -> bool:
    ports: set[object] = {port}
    ports |= {
        each["name"] for each in policies.pod(target)["containers"][0].get("ports", []) if each["containerPort"] == port
    }
    one, other = policies.pod_labels(source), policies.pod_labels(target)
    return _lets(_rules(objects, one, "Egress"), "to", other, ports) and _lets(
        _rules(objects, other, "Ingress"), "from", one, ports
    )


def test_our_pods_reach_whom_they_ask_and_nobody_else(releases: dict[str, RenderedRelease]) -> None:
    objects = releases["everything"].objects
    pods = _pods(objects)
    assert {"worker", "gpu-worker", "sweeper"} < set(pods)
    reached = {
        (source, target, port)
        for source in pods
        for target, port in (("api", 8010), ("models", 8020))
        if source != target and _reaches(objects, pods[source], pods[target], port)
    }
    assert reached == ASKED


def test_a_list_of_those_who_may_ask_does_not_shut_our_own_out() -> None:
    values = {
        "networkPolicy": {"apiFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
        "commands": {"enabled": True},
        "indexes": {"declared": {"notes": {}}},
    }
    objects = render_release(merged(MINIMAL, values)).objects
    pods = _pods(objects)
    for source in ("indexes", "commands"):
        assert _reaches(objects, pods[source], pods["api"], 8010)
    assert not _reaches(objects, pods["worker"], pods["api"], 8010)


def _outside(values: dict[str, Any], component: str) -> set[int]:
    """Return the ports on which a pod may connect to other hosts than our pods."""
    objects = render_release(merged(MINIMAL, values)).objects
    rules = _rules(objects, policies.pod_labels(_pods(objects)[component]), "Egress")
    outside = [rule for rule in rules if not any("podSelector" in peer for peer in rule.get("to", []))]
    return {each["port"] for rule in outside for each in rule["ports"]}


ISSUER: dict[str, Any] = {"networkPolicy": {"oidc": {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}}}
# Values with an address, its port, and whether a worker may connect to that port as well.
NAMED: list[tuple[dict[str, Any], int, bool]] = [
    ({"opensearch": {"url": "https://a.search.svc:9201,https://10.1.2.3:9202/"}}, 9202, True),
    ({"redis": {"url": "rediss://redis.queue.svc.cluster.local:6380/0"}}, 6380, True),
    ({"monitoring": {"traces": {"endpoint": "http://collector.telemetry.svc:14318"}}}, 14318, True),
    (ISSUER | {"access": {"oidcIssuer": "https://login.example.com:8443/realms/a", "oidcAudience": "a"}}, 8443, False),
]


@pytest.mark.parametrize(("values", "port", "of_workers"), NAMED)
def test_what_a_value_names_can_be_asked(values: dict[str, Any], port: int, of_workers: bool) -> None:
    assert port not in _outside({}, "api")
    assert port in _outside(values, "api")
    assert (port in _outside(values, "worker")) is of_workers


def test_an_issuer_can_be_asked_where_opensearch_is_one_machine() -> None:
    """The issuer's keys are at port 443. The rule for OpenSearch allows 443 only if it names no machine."""
    machine = [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
    issuer = {"access": {"oidcIssuer": "https://login.example.com", "oidcAudience": "a"}}
    values = merged(ISSUER | issuer, {"networkPolicy": {"opensearch": {"to": machine}}})
    objects = render_release(merged(MINIMAL, values)).objects
    rules = _rules(objects, policies.pod_labels(_pods(objects)["api"]), "Egress")
    issuers = ISSUER["networkPolicy"]["oidc"]["to"]
    assert any(rule["to"] == issuers and 443 in {each["port"] for each in rule["ports"]} for rule in rules)


PEERS: list[tuple[str, list[dict[str, Any]]]] = [
    ("http://opensearch.search.svc:9200", [{"namespaceSelector": SEARCH}]),
    ("https://node-1.opensearch.search.svc.cluster.local", [{"namespaceSelector": SEARCH}]),
    ("http://opensearch:9200", [{"podSelector": {}}]),
    ("http://10.1.2.3:9200,http://[fd00::1]:9200", [_block("10.1.2.3/32"), _block("fd00::1/128")]),
    ("http://a.search.svc:9200,http://b.search.svc:9200", [{"namespaceSelector": SEARCH}]),
]


@pytest.mark.parametrize(("url", "peers"), PEERS)
def test_the_destination_follows_from_the_address(url: str, peers: list[dict[str, Any]]) -> None:
    objects = render_release(merged(MINIMAL, {"opensearch": {"url": url}})).objects
    rules = _rules(objects, policies.pod_labels(_pods(objects)["worker"]), "Egress")
    (reached,) = [rule["to"] for rule in rules if 9200 in {each["port"] for each in rule["ports"]}]
    assert reached == peers


def test_keda_reaches_the_redis_of_a_trial() -> None:
    trial = {"trial": {"redis": {"enabled": True}}}
    for kind, expected in (("none", 1), ("keda", 2)):
        objects = render_release(merged(MINIMAL, trial | {"worker": {"autoscaling": {"kind": kind}}})).objects
        (policy,) = (one for one in objects if policies.named(one) == "NetworkPolicy search-sparsewell-trial-redis")
        assert len(policy["spec"]["ingress"][0]["from"]) == expected
