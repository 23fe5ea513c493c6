"""Titles of chapters: made of what is said, and checked against it."""
