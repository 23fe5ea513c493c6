"""OpenSearch on this machine, without Docker.

`distribution` fetches a release, `configuration` writes a node's files and finds a Java runtime, `node` runs the
process, and `cluster` runs temporary nodes, secured nodes and clusters (docs/decisions/0010, 0011).
"""

from infra.opensearch.node import Node, NodeConfig, start_node

__all__ = ["Node", "NodeConfig", "start_node"]
