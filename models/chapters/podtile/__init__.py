"""Chapters by a generator that reads a talk part by part with the whole in view (PODTILE, arXiv 2410.16148)."""
