"""Nodes that are gone at the end: for tests, benchmarks and tries."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from infra.opensearch.mounts import place_for_data
from infra.opensearch.node import Node, NodeConfig, Report, start_node
from infra.settings import LocalSettings
from services.machine.accounts import child_account
from services.machine.directories import temporary_state


@contextmanager
def temporary_config(settings: LocalSettings) -> Iterator[NodeConfig]:
    """A node's own, on free ports; its files lie below `root`, in a temporary directory that is gone at the end.

    The kernel ends such a node when this process (more exactly: the thread that starts it) dies without stopping it.
    """
    # (what is kept in memory would outlive the temporary directory, so that lies there too)
    within = place_for_data(Path(tempfile.gettempdir()))
    with temporary_state(child_account(settings.run_as), within) as directory:
        yield replace(
            NodeConfig.of(settings),
            root=directory / "opensearch",
            data=None,
            http_port=0,
            transport_port=0,
            tied=True,
        )


@contextmanager
def temporary_node(settings: LocalSettings, report: Report = lambda message: None) -> Iterator[Node]:
    """A running one of `temporary_config`."""
    with temporary_config(settings) as config, start_node(config, report) as node:
        yield node
