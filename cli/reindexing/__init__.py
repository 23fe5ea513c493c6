"""The parts of `sparsewell reindex` and `sparsewell generations`."""
