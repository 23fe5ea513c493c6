"""Chapters of talk: engines that make them, what is accepted of their output, training, measuring."""
