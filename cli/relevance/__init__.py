"""Measuring how good rankings are: collections with judgements, exact in-memory search, metrics, run files.

It lives under cli/ because its users are commands (eval, the benchmarks, a quality gate before a generation is
swapped) and because ir_measures belongs to the `eval` extra: no service imports it. docs/decisions/0071.
"""
