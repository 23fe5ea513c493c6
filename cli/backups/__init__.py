"""What `sparsewell backup` and `sparsewell restore` do."""
