"""Training on a corpus without queries and judgements (docs/decisions/0111)."""
