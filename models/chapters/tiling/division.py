"""Divides points in a row into runs of like ones, as many as pay for themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def divide(
    points: npt.NDArray[np.float32], sizes: npt.NDArray[np.float64], price: npt.NDArray[np.float64]
) -> list[int]:
    """Where runs begin, ascending, without the first one at 0; the best division there is, by dynamic programming.

    What a run costs: how far its points, weighted by `sizes`, are from their mean, as a share of what all of them
    together would cost. A run that begins at i costs `price[i]` more; infinite where none may begin. Takes time that
    grows with the square of the number of points, and little memory.
    """
    count = len(points)
    if count < 2:
        return []
    sums = np.vstack([np.zeros((1, points.shape[1])), np.cumsum(points * sizes[:, None], axis=0)])
    squares = np.concatenate([[0.0], np.cumsum((points.astype(np.float64) ** 2).sum(axis=1) * sizes)])
    weights = np.concatenate([[0.0], np.cumsum(sizes)])
    lengths = (sums**2).sum(axis=1)
    whole = squares[-1] - (sums[-1] ** 2).sum() / weights[-1]
    if whole <= 0:
        return []
    best = np.full(count + 1, np.inf)
    # What has been paid where a run begins.
    paid = np.full(count + 1, np.inf)
    paid[0] = best[0] = 0.0
    came = np.zeros(count + 1, np.intp)
    for end in range(1, count + 1):
        # how far the sum of a run is from 0, squared: |a - b|² by its three products, which is thrice as fast
        apart = (lengths[:end] + lengths[end] - 2 * (sums[:end] @ sums[end])) / (weights[end] - weights[:end])
        costs = paid[:end] + (squares[end] - squares[:end] - apart) / whole
        came[end] = np.argmin(costs)
        best[end] = costs[came[end]]
        if end < count:
            paid[end] = best[end] + price[end]
    starts: list[int] = []
    at = int(came[count])
    while at > 0:
        starts.append(at)
        at = int(came[at])
    return starts[::-1]
