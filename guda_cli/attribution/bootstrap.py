"""Percentile bootstrap over queries (Efron 1979), with the same resamples for every method and metric."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError


def bootstrap_interval(
    values: Array, *, seed: int, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of `values` [queries] and the percentile interval of `level` that resampled queries give it.

    The resamples depend on `seed`, `resamples` and the number of queries alone. The interval covers the
    choice of queries, neither the oracle's seeds nor the method's. DataError without queries or with values
    that are not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise DataError(
            f"no interval for values of shape {list(values.shape)}",
            why="a bootstrap over queries needs one finite value a query, and at least one query",
            fix="score at least one query with this method",
        )
    means = shares_drawn(len(values), seed, resamples) @ values
    return (float(values.mean()), *percentiles(means, level))


def percentiles(drawn: Array, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of what the resamples gave, [resamples]."""
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


@lru_cache(maxsize=4)
def shares_drawn(queries: int, seed: int, resamples: int) -> Array:
    """How often each resample draws each query, divided by the number of queries: [resamples, queries]."""
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = generator.integers(0, queries, (resamples, queries))
    cells = drawn + queries * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=resamples * queries)
    shares = counts.reshape(resamples, queries) / queries
    shares.flags.writeable = False
    return shares
