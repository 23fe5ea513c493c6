"""Builds a new generation of an index from the stored documents while the old one is searched and written."""
