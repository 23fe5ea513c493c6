"""What is written for a node, from the distribution's own files and the settings."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from infra.opensearch.cluster import SECURITY_DIRECTORY
from infra.opensearch.configuration import build_index_template, render_jvm_options, render_opensearch_yml
from infra.opensearch.distribution import (
    DISTRIBUTION_POM,
    PLUGIN_MODULES,
    Distribution,
    minimum_java_release,
    newest_java_release,
    render_descriptor,
)
from infra.redis import redis_command
from infra.settings import LocalSettings

ORIGINAL = """\
## comment
-Xms1g
-Xmx1g
8-10:-XX:+UseConcMarkSweepGC
11-:-XX:+UseG1GC
-Djava.io.tmpdir=${OPENSEARCH_TMPDIR}
-XX:+HeapDumpOnOutOfMemoryError
-XX:HeapDumpPath=data
-XX:ErrorFile=logs/hs_err_pid%p.log
8:-XX:+PrintGCDetails
8:-Xloggc:logs/gc.log
9-:-Xlog:gc*,gc+age=trace,safepoint:file=logs/gc.log:utctime,pid,tags:filecount=32,filesize=64m
20-:--add-modules=jdk.incubator.vector
21-:-javaagent:agent/opensearch-agent.jar
"""


def options(*, has_vector_module: bool) -> list[str]:
    text = render_jvm_options(ORIGINAL, heap="512m", logs=Path("/state/logs"), has_vector_module=has_vector_module)
    return text.splitlines()


def test_the_vector_module_is_asked_for_only_where_it_exists() -> None:
    line = "20-:--add-modules=jdk.incubator.vector"
    assert line in options(has_vector_module=True)
    assert line not in options(has_vector_module=False)


def test_heap_and_files_are_ours_and_the_rest_is_kept() -> None:
    assert options(has_vector_module=False) == [
        "8-10:-XX:+UseConcMarkSweepGC",
        "11-:-XX:+UseG1GC",
        "-Djava.io.tmpdir=${OPENSEARCH_TMPDIR}",
        "-XX:+HeapDumpOnOutOfMemoryError",
        "21-:-javaagent:agent/opensearch-agent.jar",
        "-Xms512m",
        "-Xmx512m",
        "-XX:HeapDumpPath=/state/logs",
        "-XX:ErrorFile=/state/logs/hs_err_pid%p.log",
    ]


@pytest.mark.parametrize("data", ["/var/lib/data", '/odd: "path" # of #mine'])
def test_the_node_listens_on_loopback_and_quotes_paths(data: str) -> None:
    written = yaml.safe_load(
        render_opensearch_yml(
            cluster_name="c",
            data=Path(data),
            logs=Path("/l"),
            http_port=1,
            transport_port=2,
            security_plugin=False,
            extra_settings={},
        )
    )
    assert written["network.host"] == "127.0.0.1"
    assert written["path.data"] == data
    assert (written["http.port"], written["transport.port"]) == (1, 2)
    assert written["discovery.type"] == "single-node"
    assert not any(name.startswith("plugins.") for name in written)


def test_a_full_distribution_runs_without_its_certificates() -> None:
    text = render_opensearch_yml(
        cluster_name="c",
        data=Path("/d"),
        logs=Path("/l"),
        http_port=1,
        transport_port=2,
        security_plugin=True,
        extra_settings={"node.name": "a", "discovery.seed_hosts": ["127.0.0.1:3"]},
    )
    written = yaml.safe_load(text)
    assert written["plugins.security.disabled"] is True
    assert (written["node.name"], written["discovery.seed_hosts"]) == ("a", ["127.0.0.1:3"]), (
        "extra settings win"
    )


def test_indexes_of_a_single_node_have_no_replicas() -> None:
    assert build_index_template(has_thai=True)["template"] == {"settings": {"index.number_of_replicas": 0}}


def test_a_runtime_without_thai_gets_another_analyser_of_that_name() -> None:
    template = build_index_template(has_thai=False)["template"]
    assert isinstance(template, dict)
    assert template["settings"]["index.analysis.analyzer.thai.type"] == "standard"


def test_the_pom_and_the_settings_pin_the_same_distribution() -> None:
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    pom = ElementTree.parse(DISTRIBUTION_POM)  # noqa: S314 - our own file
    pinned = {
        name: pom.findtext(f"m:properties/m:opensearch.{name}", namespaces=space) for name in ("group", "version")
    }
    default = LocalSettings.model_fields["opensearch_version"].default
    assert pinned == {"group": Distribution(default).group, "version": default}


@pytest.mark.parametrize(("version", "java"), [("3.6.0", 21), ("2.19.4", 11), ("10.0.0", 21)])
def test_the_java_that_a_release_needs(version: str, java: int) -> None:
    assert minimum_java_release(version) == Distribution(version).minimum_java == java


def test_the_2_line_needs_a_java_with_the_security_manager() -> None:
    assert (newest_java_release("2.19.4"), newest_java_release("3.6.0")) == (23, None)
    assert Distribution("2.19.4", security=True).name == "opensearch-2.19.4-security"


def test_modules_that_are_laid_down_say_what_they_extend() -> None:
    lines = render_descriptor("analysis-common", PLUGIN_MODULES["analysis-common"], "2.19.4").splitlines()
    assert {"name=analysis-common", "opensearch.version=2.19.4", "extended.plugins=lang-painless"} <= set(lines)
    assert set(PLUGIN_MODULES) == set(Distribution("2.19.4").modules)


def test_every_shipped_role_is_mapped_and_has_our_indexes_alone() -> None:
    roles, mapping = (
        yaml.safe_load((SECURITY_DIRECTORY / f"{name}.yml").read_text()) for name in ("roles", "roles_mapping")
    )
    assert roles.keys() == mapping.keys()
    for name, role in roles.items():
        if name != "_meta":
            patterns = {one for allowed in role["index_permissions"] for one in allowed["index_patterns"]}
            assert patterns
            assert all(one.startswith(("sparsewell-", "sparsewell_")) for one in patterns)
            assert not {"*", "cluster:*", "cluster_all"} & set(role["cluster_permissions"])


def test_redis_keeps_everything_on_loopback() -> None:
    line = " ".join(redis_command("redis-server", port=5, data=Path("/d"), databases=16))
    for part in ("--bind 127.0.0.1", "--port 5", "--appendonly yes", "--maxmemory-policy noeviction", "--dir /d"):
        assert part in line
