"""Shared code of all processes: settings, errors, wire contracts, vectors and query tables, OpenSearch, the queue."""
