"""An example that needs no download: searching the documentation of Python's own standard library."""
