"""The whole service on this machine: OpenSearch, Redis, a worker, a sweeper and the API, started and stopped together.

`parts` says what is run, `supervisor` starts, watches and stops it.
"""

from infra.stack.supervisor import PartStatus, Stack, running_stack

__all__ = ["PartStatus", "Stack", "running_stack"]
