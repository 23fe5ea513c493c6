"""A real OpenSearch node on this machine, without Docker.

`distribution` says where the node's files come from, `java` which runtime runs them, `configuration` what is written
for it, `node` starts, watches and stops the process.
"""

from infra.opensearch.node import Node, NodeConfig, start_node

__all__ = ["Node", "NodeConfig", "start_node"]
