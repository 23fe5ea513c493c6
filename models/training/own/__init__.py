"""Pairs out of a corpus that has neither queries nor judgements."""
