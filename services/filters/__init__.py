"""Filters on declared metadata: a tree of conditions, and how it is read from JSON and checked against an index."""
