"""Membership inference: how well a model's loss tells images that it was trained on from images held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guda_cli.diffusion.schedule import Array

LEAST = 2
"""Images a side: with fewer there is no error."""


@dataclass(frozen=True)
class Auc:
    """The area under the curve of a threshold on the loss, and its standard error. 0.5: cannot be told."""

    value: float
    se: float
    chance: float
    """Its standard deviation where nothing can be told (Mann and Whitney 1947)."""

    @property
    def beyond(self) -> bool:
        """Whether one in a thousand at most lies as far from 0.5 by chance: there are many groups."""
        return abs(self.value - 0.5) > 3.29 * self.chance


def auc(members: Array, others: Array) -> Auc:
    """Probability that one of `members` [n] has a lower value than one of `others` [m]; ties count half.

    Images that were trained on have lower losses (Yeom et al. 2018). The error is Hanley and McNeil's (1982,
    Radiology 143), with Laplace's half pair on either side in the estimate it is worked out at: without it an
    area of 1 has no error. NaN where a value is not finite. ValueError with fewer than two values a side.
    """
    n, m = len(members), len(others)
    if min(n, m) < LEAST:
        raise ValueError(f"{n} and {m} values tell nothing")
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        return Auc(float("nan"), float("nan"), float("nan"))
    ordered = np.sort(others)
    above = m - np.searchsorted(ordered, members, side="right")
    level = m - np.searchsorted(ordered, members, side="left") - above
    won = float(above.sum() + 0.5 * level.sum())
    chance = float(np.sqrt((n + m + 1) / (12 * n * m)))
    return Auc(won / (n * m), hanley_mcneil((won + 0.5) / (n * m + 1), n, m), chance)


def hanley_mcneil(area: float, n: int, m: int) -> float:
    """Standard error of an area of `n` against `m` values, those of exponential distributions."""
    q1, q2 = area / (2.0 - area), 2.0 * area**2 / (1.0 + area)
    variance = area * (1.0 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)
    return float(np.sqrt(max(variance, 0.0) / (n * m)))
