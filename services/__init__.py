"""What every process shares: settings, errors, wire contracts, vectors and query tables, OpenSearch, the queue."""
