"""From ELBO terms to delta-ELBO scores with paired standard errors (docs/methods.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array


@dataclass(frozen=True, eq=False)
class Estimate:
    """Score [queries] and its Monte-Carlo standard error [queries]."""

    value: Array
    se: Array


def estimate(terms: Array, grid: Grid, multiplier: Array) -> Estimate:
    """Weighted sum over timesteps of `terms` [queries, draws, n], mean over draws, and its error.

    With two or more draws the error comes from the spread within each stratum; with one draw from
    the differences of neighbouring strata, which overstates it.
    """
    weighted = terms * (multiplier[grid.timesteps] * grid.widths)[None]
    draws = weighted.shape[1]
    value = weighted.mean(axis=1).sum(axis=1)
    if draws > 1:
        variance = (weighted.var(axis=1, ddof=1) / draws).sum(axis=1)
    else:
        variance = _collapsed_variance(weighted[:, 0])
    return Estimate(value, np.sqrt(variance))


def _collapsed_variance(rows: Array) -> Array:
    """Variance of each row's sum from one value a stratum, by collapsing neighbours to pairs.

    An odd last stratum joins the pair before it. A single stratum tells nothing: NaN. (Cochran 1977,
    section 5A.12.)
    """
    n = rows.shape[1]
    if n < 2:
        return np.full(len(rows), np.nan)
    cuts = list(range(0, n - n % 2, 2))
    groups = [rows[:, a : n if a == cuts[-1] else a + 2] for a in cuts]
    return np.asarray(sum(group.shape[1] * group.var(axis=1, ddof=1) for group in groups))


def delta_elbo(full: Array, without: Array, grid: Grid, multiplier: Array) -> Estimate:
    """ELBO(full) - ELBO(without the group) from both models' -ELBO terms [queries, draws, n].

    Positive: without the group the model explains the image worse. The terms share their noise, so
    the error is that of the paired difference (GUDA, eq. of section 3; LOGOA with retrained models).
    """
    return estimate(without - full, grid, multiplier)


@dataclass(frozen=True)
class Null:
    """Student-t prediction of a size-matched random group's score for one query."""

    mean: float
    sd: float
    count: int

    def z(self, score: float, se: float) -> float:
        """How far `score` lies above what a random group of that size scores, in standard deviations.

        The deviation covers the spread of the null scores, the error of their mean and the score's
        own Monte-Carlo error.
        """
        spread = math.sqrt(self.sd**2 * (1.0 + 1.0 / self.count) + se**2)
        if spread == 0.0:
            return 0.0 if score == self.mean else math.copysign(math.inf, score - self.mean)
        return (score - self.mean) / spread

    def p_value(self, z: float) -> float:
        """One-sided probability of such a z under Student's t with count - 1 degrees of freedom."""
        from scipy.special import stdtr

        return float(stdtr(self.count - 1, -z))


def null_of(scores: Array) -> Null | None:
    """The null of one query from the scores [m] of m random groups; None with fewer than two."""
    if len(scores) < 2:
        return None
    return Null(float(scores.mean()), float(scores.std(ddof=1)), len(scores))
