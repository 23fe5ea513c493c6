"""Chapters of talk: engines that propose them, checks and repairs of proposals, titles."""
