"""Invalid values are refused before the installation, with a message that names the error."""

from typing import Any

import pytest

from infra.helm.rendering import ChartError, load_case_values, render_release, render_releases


def merged(values: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return values | {
        key: merged(values[key], value) if isinstance(value, dict) and isinstance(values.get(key), dict) else value
        for key, value in other.items()
    }


ISSUER_ONLY = {
    "access": {"adminKeySecret": {"name": ""}, "oidcIssuer": "https://login.example.com", "oidcAudience": "a"}
}
DIGEST = {"digest": f"sha256:{'1' * 64}"}
MODELS = {"access": {"modelKeySecret": {"name": "keys"}}, "modelFiles": {"volume": {"emptyDir": {}}}}
MINIMAL = load_case_values("minimal")
BAD: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 3}, "replicas"),
    ({"api": {"replica": 3}}, "replica"),
    ({"api": {"replicas": 0}}, "replicas"),
    ({"api": {"replicas": "2"}}, "replicas"),
    ({"api": {"service": {"port": 70000}}}, "port"),
    ({"api": {"ingress": {"enabled": True}}}, "api.ingress.hosts"),
    ({"api": {"httpRoute": {"enabled": True}}}, "api.httpRoute.parentRefs"),
    ({"opensearch": {"url": ""}}, "opensearch.url"),
    ({"opensearch": {"url": "opensearch:9200"}}, "opensearch"),
    ({"opensearch": {"url": "https://admin:secret@opensearch:9200"}}, "opensearch"),
    ({"opensearch": {"password": "secret"}}, "password"),
    ({"redis": {"url": ""}}, "redis.url"),
    ({"redis": {"url": "redis://:secret@redis:6379/0"}}, "redis"),
    ({"redis": {"url": "unix:///run/redis.sock"}}, "redis:// or rediss://"),
    ({"settings": {"PRUN": 0.1}}, "PRUN"),
    ({"settings": {"OPENSEARCH_URL": "http://elsewhere"}}, "OPENSEARCH_URL"),
    ({"settings": {"PRUNE": {"a": 1}}}, "PRUNE"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"image": {"api": {"digest": "sha256:abc"}}}, "digest"),
    ({"worker": {"autoscaling": {"kind": "magic"}}}, "kind"),
    ({"worker": {"autoscaling": {"kind": "external", "minReplicas": 0}}}, "minReplicas 0"),
    ({"worker": {"podDisruptionBudget": {"maxUnavailable": "many"}}}, "maxUnavailable"),
    ({"encoder": {"name": "/models/own"}, "worker": {"autoscaling": {"kind": "keda"}}}, "encoder.queue"),
    ({"gpuWorker": {"gpus": 0}}, "gpus"),
    ({"models": {"enabled": True}}, "modelFiles.volume"),
    ({"models": {"enabled": True, "encoders": ["standin-dense"]}}, "access.modelKeySecret"),
    ({"access": {"adminKeySecret": {"name": ""}}}, "access.adminKeySecret"),
    ({"access": {"mode": "auto"}}, "mode"),
    ({"access": {"oidcIssuer": "https://login.example.com"}}, "access.oidcAudience"),
    (ISSUER_ONLY | {"indexes": {"declared": {"notes": {}}}}, "show a key"),
    ({"access": {"adminKey": "0123456789"}}, "adminKey"),
    ({"settings": {"OPENSEARCH_PASSWORD": "secret"}}, "OPENSEARCH_PASSWORD"),
    ({"indexes": {"declared": {"Bad Name": {}}}}, "Bad Name"),
    ({"indexes": {"onDifference": "drop"}}, "onDifference"),
    ({"trial": {"redis": {"image": "redis"}}}, "image"),
    ({"monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}}, "twice"),
    ({"monitoring": {"podMonitor": {"enabled": True}, "metrics": {"enabled": False}}}, "metrics.enabled"),
    ({"monitoring": {"metrics": {"port": 80}}}, "port"),
    ({"monitoring": {"podMonitor": {"enabled": True}}}, "networkPolicy.metricsFrom"),
    ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "networkPolicy.metricsFrom"),
    ({"api": {"drainSeconds": 30}}, "api.terminationGracePeriodSeconds must be 42"),
    ({"settings": {"DRAIN_SECONDS": 15}}, "api.terminationGracePeriodSeconds must be 35"),
    (MODELS | {"models": {"enabled": True, "drainSeconds": 20}}, "models.terminationGracePeriodSeconds must be 32"),
    ({"opensearch": {"authSecrets": {"sweeper": "a"}}}, "sweeper"),
    ({"networkPolicy": {"opensearch": {"ports": ["9200"]}}}, "ports"),
    ({"opensearch": {"url": "https://search.example.com:9200"}}, "networkPolicy.opensearch.to"),
    ({"redis": {"url": "", "urlSecret": {"name": "redis"}}}, "networkPolicy.redis.to"),
    ({"access": {"oidcIssuer": "https://login.example.com", "oidcAudience": "a"}}, "networkPolicy.oidc.to"),
    ({"monitoring": {"traces": {"endpoint": "https://traces.example.com"}}}, "monitoring.traces.to"),
    ({"image": {"requireDigests": True}}, "image.requireDigests: the image sparsewell-worker"),
    (
        {"image": {"requireDigests": True, "api": DIGEST, "worker": DIGEST}, "trial": {"redis": {"enabled": True}}},
        "trial.redis.image",
    ),
    ({"settings": {"TASK_LIMIT": 600}}, "worker.terminationGracePeriodSeconds must be 615"),
    ({"worker": {"env": [{"name": "SPARSEWELL_TASK_LIMIT", "value": "400.5"}]}}, "must be 416"),
    (
        {"gpuWorker": {"enabled": True, "terminationGracePeriodSeconds": 300}},
        "gpuWorker.terminationGracePeriodSeconds must be 315",
    ),
    ({"worker": {"rollingUpdate": {"maxSurge": "some"}}}, "maxSurge"),
]


def test_bad_values_are_refused_and_named() -> None:
    answers = render_releases(*(merged(MINIMAL, values) for values, _ in BAD))
    for (values, word), answer in zip(BAD, answers, strict=True):
        assert isinstance(answer, ChartError), values
        assert word in str(answer)
        assert "secret" not in str(answer)


def test_keda_is_told_where_a_hidden_redis_is() -> None:
    hidden = {"redis": {"url": "", "urlSecret": {"name": "redis"}}, "worker": {"autoscaling": {"kind": "keda"}}}
    with pytest.raises(ChartError, match="address of Redis"):
        render_release(merged(MINIMAL, hidden))


def test_the_encoder_of_gpu_workers_needs_a_queue_of_its_own() -> None:
    gpu = {"gpuWorker": {"enabled": True, "autoscaling": {"kind": "keda"}, "encoder": {"name": "/models/large"}}}
    with pytest.raises(ChartError, match=r"gpuWorker\.encoder\.queue"):
        render_release(merged(MINIMAL, gpu))
