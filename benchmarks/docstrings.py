"""Texts that every machine has: docstrings of Python's standard library, with the length that passages have."""

from itertools import islice

from examples.stdlib.corpus import documents

# Shorter ones are a signature and a line.
SHORTEST = 300


def passages(number: int) -> list[tuple[str, str]]:
    """Title and text of `number` documents of at least 300 characters, spread over the library; the same every time."""
    long_ones = [one for one in documents() if len(one["text"]) >= SHORTEST]
    step = max(1, len(long_ones) // number)
    return [(one["title"], one["text"]) for one in islice(long_ones, 0, step * number, step)]
