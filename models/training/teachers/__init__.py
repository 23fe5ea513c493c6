"""Teachers: dense, sparse and BM25 models whose scores the student learns from."""
