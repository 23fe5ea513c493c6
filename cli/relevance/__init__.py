"""Relevance: judged collections, metrics, exact search in memory, provenance, and the quality gate of a reindex.

It is part of cli/ because its users are commands and benchmarks, and because ir_measures belongs to the `eval` extra,
which no service imports (docs/decisions/0071).
"""
