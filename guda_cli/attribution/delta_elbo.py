"""From ELBO terms to delta-ELBO scores with paired standard errors (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import numpy.typing as npt

from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array


@dataclass(frozen=True, eq=False)
class Estimate:
    """Score [queries], its Monte-Carlo standard error and the degrees of freedom of that error [queries]."""

    value: Array
    se: Array
    df: Array

    @cached_property
    def reach(self) -> Array:
        """How far the 95 % interval reaches to each side [queries]: Student's t times the error."""
        from scipy.special import stdtrit

        t: Array = np.asarray(stdtrit(self.df, 0.975))
        return t * self.se


def estimate(terms: Array, grid: Grid, multiplier: Array) -> Estimate:
    """Weighted sum over timesteps of `terms` [queries, draws, n], mean over draws, and its error.

    With two or more draws the error comes from the spread within each stratum; with one draw from
    the differences of neighbouring strata, which overstates it.
    """
    weighted = grid.weighted(terms, multiplier)
    if weighted.shape[1] > 1:
        return summed(weighted)
    parts, free = _collapsed(weighted[:, 0], _neighbours(grid.timesteps[0]))
    return Estimate(weighted[:, 0].sum(axis=1), np.sqrt(parts.sum(axis=1)), degrees(parts, free))


def summed(weighted: Array) -> Estimate:
    """Sum over strata of weighted terms [queries, draws, n], mean over two draws or more, and its error."""
    draws = weighted.shape[1]
    parts, free = weighted.var(axis=1, ddof=1) / draws, np.full(weighted.shape[2], draws - 1.0)
    value = weighted.mean(axis=1).sum(axis=1)
    return Estimate(value, np.sqrt(parts.sum(axis=1)), degrees(parts, free))


def _neighbours(timesteps: npt.NDArray[np.int64]) -> list[slice]:
    """Strata [n] of one draw in pairs of neighbours; an odd last one joins the pair before it.

    Strata that were drawn from repeatedly pair with one another: they differ by their noise alone. One
    between two such is alone, and tells nothing.
    """
    runs: list[list[int]] = []
    mixed = False  # whether the last run is of strata drawn from once
    for _, equal in groupby(range(len(timesteps)), key=lambda j: timesteps[j]):
        found = list(equal)
        once = len(found) == 1
        if once and mixed:
            runs[-1] += found
        else:
            runs.append(found)
        mixed = once
    return [pair for run in runs for pair in _pairs(run[0], run[-1] + 1)]


def _pairs(low: int, high: int) -> list[slice]:
    cuts = range(low, high - 1, 2) or [low]
    return [slice(a, high if a == cuts[-1] else a + 2) for a in cuts]


def _collapsed(rows: Array, pairs: Sequence[slice]) -> tuple[Array, Array]:
    """Parts [queries, pairs] of the variance of each row's sum from one value a stratum, and their d.f.

    Each part is that of strata collapsed to one. A single stratum tells nothing: NaN. (Cochran 1977, section
    5A.12.)
    """
    pairs = [pair for pair in pairs if pair.stop - pair.start > 1]
    if not pairs:
        return np.full((len(rows), 1), np.nan), np.ones(1)
    groups = [rows[:, pair] for pair in pairs]
    parts = np.stack([group.shape[1] * group.var(axis=1, ddof=1) for group in groups], axis=1)
    return parts, np.array([group.shape[1] - 1.0 for group in groups])


def degrees(parts: Array, free: Array) -> Array:
    """Degrees of freedom [queries] of sums of `parts` [queries, m], which have `free` [m] each.

    Satterthwaite's (1946), with both of its sums of squares corrected for the chance in the parts: for
    a part of d degrees E[s^4] is (1 + 2 / d) sigma^4, and with one degree each the plain quotient is a third
    of what it should be. At least 1, at most the sum of `free`.
    """
    total, squares = parts.sum(axis=1), (parts**2 / (free + 2.0)).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = total**2 / squares - 2.0
    return np.asarray(np.clip(np.where(np.isfinite(found), found, free.sum()), 1.0, free.sum()))


def delta_elbo(full: Array, without: Array, grid: Grid, multiplier: Array) -> Estimate:
    """ELBO(full) - ELBO(without the group) from both models' -ELBO terms [queries, draws, n].

    Positive: without the group the model explains the image worse. The terms share their noise, so
    the error is that of the paired difference (GUDA, eq. of section 3; LOGOA with retrained models).
    """
    return estimate(without - full, grid, multiplier)
