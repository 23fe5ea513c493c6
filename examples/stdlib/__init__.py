"""The demo over Python's standard library, which needs no download."""
