"""Trains a generator to write chapters (`sparsewell train chapters`). Needs the `train` extra."""
