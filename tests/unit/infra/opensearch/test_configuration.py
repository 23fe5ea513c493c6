"""Configuration files of a node."""

from pathlib import Path

import pytest
import yaml

from infra.opensearch.configuration import build_index_template, render_jvm_options, render_opensearch_yml

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


def test_the_vector_module_is_added_only_where_it_exists() -> None:
    line = "20-:--add-modules=jdk.incubator.vector"
    assert line in options(has_vector_module=True)
    assert line not in options(has_vector_module=False)


def test_heap_and_files_are_replaced_and_other_options_kept() -> None:
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
def test_the_node_listens_on_loopback_and_paths_are_quoted(data: str) -> None:
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


def test_a_full_distribution_runs_without_certificates() -> None:
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
    assert (written["node.name"], written["discovery.seed_hosts"]) == ("a", ["127.0.0.1:3"]), "extra settings win"


def test_indexes_of_a_single_node_have_no_replicas() -> None:
    assert build_index_template(has_thai=True)["template"] == {"settings": {"index.number_of_replicas": 0}}


def test_a_runtime_without_thai_replaces_the_thai_analyser() -> None:
    template = build_index_template(has_thai=False)["template"]
    assert isinstance(template, dict)
    assert template["settings"]["index.analysis.analyzer.thai.type"] == "standard"
