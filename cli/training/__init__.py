"""How `sparsewell train` speaks to people; the training itself is in models.training."""
