"""Configurations of a local cluster, and the shipped security roles."""

from pathlib import Path

import yaml

from infra.opensearch.cluster import SECURITY_DIRECTORY, cluster_configs
from infra.opensearch.distribution import Distribution
from infra.opensearch.node import NodeConfig

BASE = NodeConfig(Path("/state"), Path("/cache"), Distribution("3.6.0"), data=Path("/data"), extra_settings={"a.b": 1})


def test_a_cluster_has_two_data_nodes_and_a_small_voter() -> None:
    first, second, voter = cluster_configs(BASE, Path("/tmp/cluster"), 2)  # noqa: S108 (nothing is written)
    assert len({config.root for config in (first, second, voter)}) == 3
    assert len({config.transport_port for config in (first, second, voter)}) == 3
    assert [config.data for config in (first, second, voter)] == [None, None, None], "each has a directory of its own"
    assert all("cluster_manager" in config.extra_settings["node.roles"] for config in (first, second, voter))  # type: ignore[operator]
    assert "data" not in voter.extra_settings["node.roles"]  # type: ignore[operator]
    assert (first.heap, voter.heap) == ("512m", "256m")


def test_nodes_find_each_other_on_loopback_and_the_first_founds_the_cluster() -> None:
    configs = cluster_configs(BASE, Path("/tmp/cluster"), 2)  # noqa: S108 (nothing is written)
    seeds = [f"127.0.0.1:{config.transport_port}" for config in configs]
    for config in configs:
        assert config.extra_settings["discovery.seed_hosts"] == seeds
        assert config.extra_settings["cluster.initial_cluster_manager_nodes"] == ["data-1"]
        assert config.extra_settings["a.b"] == 1, "the settings of the base stay"


def test_every_shipped_role_is_mapped_and_covers_our_indexes_only() -> None:
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
