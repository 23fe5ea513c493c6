"""The parts of `sparsewell load`: reading lines, sending batches, remembering the place, showing progress."""
