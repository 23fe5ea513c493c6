"""Read the counters of error responses as Prometheus would."""

from prometheus_client import REGISTRY


def problems(code: str) -> float:
    """Return how many errors with this code this process has returned."""
    return REGISTRY.get_sample_value("sparsewell_problems_total", {"code": code}) or 0.0
