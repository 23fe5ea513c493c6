"""Chapters without a generator: where neighbouring blocks of a talk say different things, by our own sparse vectors."""
