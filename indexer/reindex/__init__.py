"""Reindexing: a new generation of an index, built while the old one is searched and written (docs/decisions/0095)."""
