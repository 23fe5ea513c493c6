"""JSON schema of the chart's values (values.schema.json).

It is strict: an unknown name is an error, because a misspelt value would do nothing. Kubernetes checks the objects that
it defines itself (resources, tolerations, volumes), so the schema accepts any content for them (docs/decisions/0215).
"""

from typing import Any

from pydantic import AliasChoices

from indexer.runtime import WorkerSettings
from services.settings import Settings

Schema = dict[str, Any]
STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
POSITIVE: Schema = {"type": "integer", "minimum": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
STRINGS: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}}
STRING_MAP: Schema = {"type": "object", "additionalProperties": STRING}
KUBERNETES_OBJECT: Schema = {"type": "object"}
KUBERNETES_LIST: Schema = {"type": "array", "items": {"type": "object"}}
INT_OR_PERCENT: Schema = {"anyOf": [COUNT, {"type": "string", "pattern": "^[0-9]{1,3}%$"}]}
NAME: Schema = {"type": "string", "pattern": "^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$"}
PORTS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}}
QUANTITY: Schema = {"type": "string", "pattern": "^[0-9.]+([KMGT]i?|m)?$"}
# Settings that the chart's templates set, and settings of a machine without Kubernetes.
CHART_SETTINGS = frozenset(
    {
        "access", "admin_key_file", "api_host", "api_port", "cache_dir", "commit", "encoder", "metrics_host",
        "metrics_port", "model_encoders", "model_host", "model_key_file", "model_port", "model_timeout", "model_url",
        "more_encoders", "oidc_audience", "oidc_issuer", "opensearch_aws_region", "opensearch_ca", "opensearch_cert",
        "opensearch_key", "opensearch_password", "opensearch_password_file", "opensearch_port", "opensearch_url",
        "opensearch_user", "redis_ca", "redis_cert", "redis_key", "redis_password", "redis_password_file",
        "redis_port", "redis_url", "redis_user", "worker_concurrency", "worker_threads",
    }
)  # fmt: skip


def setting_names() -> list[str]:
    """Return the names that `settings` of the values may have, in capitals. Renamed settings have their former too."""
    fields = {**Settings.model_fields, **WorkerSettings.model_fields}
    names = fields.keys() - CHART_SETTINGS
    aliases = (fields[name].validation_alias for name in names)
    former = {choice for alias in aliases if isinstance(alias, AliasChoices) for choice in map(str, alias.choices)}
    return sorted({name.upper() for name in names} | {name.removeprefix("SPARSEWELL_") for name in former})


def values_schema() -> Schema:
    """Return the schema of all values."""
    setting = {"type": ["string", "number", "boolean"]}
    index_name = {"pattern": "^[a-z0-9][a-z0-9_-]{0,99}$"}
    gpu = _workers() | {
        "image": _image(),
        "encoder": strict_object(name=STRING, queue=STRING),
        "gpus": POSITIVE,
        "resourceName": {"type": "string", "pattern": "^[a-z0-9.-]+/[A-Za-z0-9._-]+$"},
        "batchPieces": _allow_empty(POSITIVE),
        "runtimeClassName": STRING,
    }
    models = {"enabled": BOOLEAN, "replicas": POSITIVE, "encoders": STRINGS | {"minItems": 1}, "threads": POSITIVE}
    models |= {"timeout": {"type": "number", "exclusiveMinimum": 0}, "drainSeconds": COUNT}
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart sparsewell"}
    return head | strict_object(
        nameOverride=STRING,
        fullnameOverride=STRING,
        commonLabels=STRING_MAP,
        podAnnotations=STRING_MAP,
        imagePullSecrets={"type": "array", "items": strict_object(name=NAME)},
        image=strict_object(
            registry=STRING,
            pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
            requireDigests=BOOLEAN,
            api=_image(),
            worker=_image(),
        ),
        access=strict_object(
            mode={"enum": ["keys", "open"]},
            adminKeySecret=_secret_key("key"),
            modelKeySecret=_secret_key("key"),
            oidcIssuer={"type": "string", "pattern": "^(https?://.+)?$"},
            oidcAudience=STRING,
        ),
        opensearch=strict_object(
            **_store(),
            authSecrets=_access_roles(),
            certSecrets=_access_roles(),
            awsRegion={"type": "string", "pattern": "^[a-z0-9-]*$"},
        ),
        redis=strict_object(**_store()),
        encoder=strict_object(name={"type": "string", "minLength": 1}, queue=STRING, more=STRINGS),
        modelFiles=strict_object(mountPath={"type": "string", "pattern": "^/"}, volume=KUBERNETES_OBJECT),
        settings={
            "type": "object",
            "additionalProperties": False,
            "properties": dict.fromkeys(setting_names(), setting),
        },
        extraEnv=KUBERNETES_LIST,
        extraVolumes=KUBERNETES_LIST,
        extraVolumeMounts=KUBERNETES_LIST,
        serviceAccount=strict_object(create=BOOLEAN, name=NAME, annotations=STRING_MAP),
        podSecurityContext=KUBERNETES_OBJECT,
        securityContext=KUBERNETES_OBJECT,
        api=_api(),
        worker=strict_object(**_workers()),
        gpuWorker=strict_object(**gpu),
        sweeper=strict_object(enabled=BOOLEAN, replicas=POSITIVE, **_pods()),
        models=strict_object(**models, podDisruptionBudget=_budget(), **_pods()),
        commands=strict_object(enabled=BOOLEAN, **_pods()),
        indexes=strict_object(
            declared={"type": "object", "propertyNames": index_name, "additionalProperties": {"type": "object"}},
            onDifference={"enum": ["fail", "reindex"]},
            wait=COUNT,
            activeDeadlineSeconds=POSITIVE,
            backoffLimit=COUNT,
            resources=KUBERNETES_OBJECT,
        ),
        monitoring=_monitoring(),
        networkPolicy=_network(),
        trial=_trial(),
    )


def strict_object(**properties: Schema) -> Schema:
    """Return the schema of an object with exactly these members."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _allow_empty(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"const": ""}]}


def _secret_key(*keys: str) -> Schema:
    return strict_object(name=NAME, **dict.fromkeys(keys, STRING))


def _store() -> dict[str, Schema]:
    return {
        "url": STRING,
        "urlSecret": _secret_key("key"),
        "authSecret": _secret_key("userKey", "passwordKey"),
        "ca": strict_object(secret=NAME, configMap=NAME, key=STRING),
        "certSecret": _secret_key("certKey", "keyKey"),
    }


def _access_roles() -> Schema:
    return strict_object(api=NAME, worker=NAME, operator=NAME)


def _image() -> Schema:
    digest = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
    return strict_object(repository={"type": "string", "minLength": 1}, tag=STRING, digest=digest)


def _budget() -> Schema:
    return strict_object(enabled=BOOLEAN, maxUnavailable=INT_OR_PERCENT)


def _rolling_update() -> Schema:
    return strict_object(maxSurge=INT_OR_PERCENT, maxUnavailable=INT_OR_PERCENT)


def _pods() -> dict[str, Schema]:
    return {
        "resources": KUBERNETES_OBJECT,
        "terminationGracePeriodSeconds": POSITIVE,
        "env": KUBERNETES_LIST,
        "podAnnotations": STRING_MAP,
        "nodeSelector": STRING_MAP,
        "tolerations": KUBERNETES_LIST,
        "affinity": KUBERNETES_OBJECT,
        "topologySpreadConstraints": KUBERNETES_LIST,
        "priorityClassName": STRING,
    }


def _workers() -> dict[str, Schema]:
    keda = strict_object(
        pollingInterval=POSITIVE,
        cooldownPeriod=COUNT,
        address={"type": "string", "pattern": "^([^:/@]+:[0-9]+)?$"},
        databaseIndex=_allow_empty(COUNT),
        enableTLS=_allow_empty(BOOLEAN),
        authSecret=_secret_key("usernameKey", "passwordKey"),
    )
    autoscaling = strict_object(
        kind={"enum": ["none", "keda", "external"]},
        minReplicas=COUNT,
        maxReplicas=POSITIVE,
        messagesPerReplica=POSITIVE,
        keda=keda,
        external=strict_object(metricName={"type": "string", "minLength": 1}, matchLabels=STRING_MAP),
    )
    members = {"enabled": BOOLEAN, "replicas": COUNT, "concurrency": POSITIVE, "threads": POSITIVE}
    members |= {"autoscaling": autoscaling, "rollingUpdate": _rolling_update(), "podDisruptionBudget": _budget()}
    return members | _pods()


def _api() -> Schema:
    return strict_object(
        replicas=POSITIVE,
        rollingUpdate=_rolling_update(),
        trustedProxies=STRINGS,
        drainSeconds=COUNT,
        autoscaling=strict_object(
            enabled=BOOLEAN,
            minReplicas=POSITIVE,
            maxReplicas=POSITIVE,
            targetCPUUtilizationPercentage={"type": "integer", "minimum": 1, "maximum": 100},
        ),
        podDisruptionBudget=_budget(),
        service=strict_object(
            type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
            port={"type": "integer", "minimum": 1, "maximum": 65535},
            annotations=STRING_MAP,
        ),
        ingress=strict_object(
            enabled=BOOLEAN, className=STRING, annotations=STRING_MAP, hosts=STRINGS, tls=KUBERNETES_LIST
        ),
        httpRoute=strict_object(enabled=BOOLEAN, parentRefs=KUBERNETES_LIST, hostnames=STRINGS, annotations=STRING_MAP),
        **_pods(),
    )


def _trial() -> Schema:
    store = {"enabled": BOOLEAN, "image": {"type": "string", "pattern": "^.+[:@].+$"}, "storage": QUANTITY}
    store |= {"storageClassName": STRING, "resources": KUBERNETES_OBJECT}
    return strict_object(
        opensearch=strict_object(**store, heap={"type": "string", "pattern": "^[0-9]+[mg]$"}),
        redis=strict_object(**store, maxmemory={"type": "string", "pattern": "^[0-9]+(kb|mb|gb)$"}),
    )


def _monitoring() -> Schema:
    interval = {"type": "string", "pattern": "^[0-9]+(s|m)$"}
    monitor = strict_object(enabled=BOOLEAN, interval=interval, labels=STRING_MAP)
    metrics = strict_object(enabled=BOOLEAN, port={"type": "integer", "minimum": 1024, "maximum": 65535})
    return strict_object(
        metrics=metrics,
        podMonitor=monitor,
        serviceMonitor=monitor,
        rules=strict_object(enabled=BOOLEAN, labels=STRING_MAP),
        traces=strict_object(
            endpoint={"type": "string", "pattern": "^(https?://[^@]+)?$"},
            ratio={"type": "number", "minimum": 0, "maximum": 1},
            port={"type": "integer", "minimum": 1, "maximum": 65535},
            to=KUBERNETES_LIST,
        ),
        dashboard=strict_object(enabled=BOOLEAN, labels=STRING_MAP, annotations=STRING_MAP),
    )


def _network() -> Schema:
    store = strict_object(ports=PORTS, to=KUBERNETES_LIST)
    return strict_object(
        enabled=BOOLEAN,
        apiFrom=KUBERNETES_LIST,
        metricsFrom=KUBERNETES_LIST,
        opensearch=store,
        redis=store,
        oidc=store,
        dns=strict_object(to=KUBERNETES_LIST),
        kedaFrom=KUBERNETES_LIST,
        extraEgress=KUBERNETES_LIST,
    )
