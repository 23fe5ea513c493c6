"""Filters on declared metadata: a tree of conditions, and the parser that checks it against an index."""
