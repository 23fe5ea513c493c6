"""Generate random vectors and queries. Each family tests another way to fail. The seed determines everything."""

from collections.abc import Callable

import numpy as np

Vectors = dict[str, dict[int, float]]

VOCABULARY = 30_522
# Lucene accepts no weight below the smallest normal float. Its largest weight is the largest float.
SMALLEST = float(np.finfo(np.float32).tiny)
# The sum of 1,000 products of these two stays below the largest float. OpenSearch cannot return an infinite score as a
# number.
LARGEST_WEIGHT, LARGEST_BOOST = 1e30, 1e5


def _zipfian(rng: np.random.Generator, count: int, vocabulary: int) -> list[int]:
    """Return `count` distinct ids. Low ids occur in many vectors, as frequent tokens do."""
    drawn = (vocabulary ** rng.random(count * 4)).astype(np.int64) - 1
    distinct = list(dict.fromkeys(drawn.tolist()))[:count]
    return [int(i) for i in distinct]


def ordinary(rng: np.random.Generator) -> dict[int, float]:
    """Return a vector like an encoder's: 20 to 300 weights around 0.5."""
    ids = _zipfian(rng, int(rng.integers(20, 300)), VOCABULARY)
    return dict(zip(ids, np.exp(rng.normal(-1, 0.8, len(ids))).tolist(), strict=True))


def tied(rng: np.random.Generator) -> dict[int, float]:
    """Return a vector of few ids and two weights, so that nearly every score occurs many times."""
    ids = rng.choice(12, size=int(rng.integers(1, 5)), replace=False)
    return {int(i): float(rng.choice([0.5, 1.0])) for i in ids}


def extreme(rng: np.random.Generator) -> dict[int, float]:
    """Return weights between Lucene's smallest and 1e30, many of them at the edges of a truncation step."""
    ids = _zipfian(rng, int(rng.integers(1, 40)), 500)
    weights = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST_WEIGHT), len(ids))).astype(np.float32)
    edges = weights.view(np.uint32)
    kind = rng.integers(0, 4, len(ids))
    edges[kind == 1] &= 0xFFFF8000  # exactly a stored value
    edges[kind == 2] |= 0x00007FFF  # one bit below the next stored value
    weights[kind == 3] = rng.choice([SMALLEST, 1.0, LARGEST_WEIGHT], int((kind == 3).sum()))
    return {i: max(float(weight), SMALLEST) for i, weight in zip(ids, weights, strict=True)}


def single(rng: np.random.Generator) -> dict[int, float]:
    """Return a vector of a single token."""
    return {int(rng.integers(0, 65_536)): float(rng.uniform(0.01, 3))}


def empty(_rng: np.random.Generator) -> dict[int, float]:
    """Return a vector without tokens, which is never a hit."""
    return {}


def long(rng: np.random.Generator) -> dict[int, float]:
    """Return a vector that is a hundred times longer than usual."""
    ids = rng.choice(65_536, size=5_000, replace=False)
    return dict(zip(map(int, ids), rng.uniform(0.001, 3, 5_000).tolist(), strict=True))


FAMILIES: dict[str, tuple[Callable[[np.random.Generator], dict[int, float]], int]] = {
    "ordinary": (ordinary, 1_200),
    "tied": (tied, 600),
    "extreme": (extreme, 900),
    "single": (single, 300),
    "empty": (empty, 50),
    "long": (long, 20),
}


def documents(seed: int) -> Vectors:
    """Return about three thousand vectors of all families in mixed order."""
    rng = np.random.default_rng(seed)
    made = [(f"{family}-{n}", make(rng)) for family, (make, count) in FAMILIES.items() for n in range(count)]
    return dict(made[int(i)] for i in rng.permutation(len(made)))


def queries(seed: int) -> list[dict[int, float]]:
    """Return six hundred queries of 1 to 1,000 tokens with usual, equal and extreme weights and with unknown ids."""
    rng = np.random.default_rng(seed)
    made: list[dict[int, float]] = []
    for n in range(600):
        pieces = int(rng.integers(1, 25))
        vocabulary = (VOCABULARY, 500, 12)[n % 3]
        ids = _zipfian(rng, pieces, vocabulary)
        match n % 4:
            case 0 | 1:
                weights = rng.uniform(0.05, 9, len(ids))
            case 2:
                weights = np.full(len(ids), rng.choice([0.25, 1.0, 3.3]))
            case _:
                weights = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST_BOOST), len(ids)))
        made.append(dict(zip(ids, weights.tolist(), strict=True)))
    for pieces in (300, 999, 1_000):
        ids = rng.choice(VOCABULARY, size=pieces, replace=False).tolist()
        made.append(dict(zip(ids, rng.uniform(0.05, 9, pieces).tolist(), strict=True)))
    made.append({65_535: 1.0, 65_534: 2.0})
    made.append({VOCABULARY + 1_000_000: 1.0})  # an id that no document can have
    return made
