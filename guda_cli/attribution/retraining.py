"""What retraining would say, foretold from unlearned models' scores where some groups' retraining is known.

Unlearning leaves part of a group in the model, and a retraining brings the chance of its own seed: neither
shows in the spread of unlearned models. Both are learnt from groups that were retrained: the oracle's scores
are taken as shift + slope x score, with a deviation that grows with the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guda_cli.diffusion.schedule import Array

LEAST_GROUPS, LEAST_IMAGES = 2, 16


@dataclass(frozen=True)
class Retraining:
    """The oracle's score is shift + slope x score, give or take `reach` deviations in 95 of 100 cases.

    The deviation is sqrt(floor^2 + (rise x score)^2). `reach` comes from groups that no line was fitted to.
    """

    shift: float
    slope: float
    floor: float
    rise: float
    reach: float
    groups: int
    images: int
    seeds: int

    def interval(self, scores: Array) -> tuple[Array, Array, Array]:
        """The score foretold of one more retraining, and the ends of its 95 % interval."""
        middle = self.shift + self.slope * scores
        half = self.reach * _deviation(scores, self.floor, self.rise)
        return middle, middle - half, middle + half


def fit(scores: Array, oracles: Sequence[Array]) -> Retraining | None:
    """From scores [images, groups] and each oracle seed's [images, groups] of the same; None where too few.

    Each group in turn is left out, and `reach` is the 95 % quantile of how far the left out lie from the line
    of the others, in deviations: what it is for a group whose retraining is not known.
    """
    images, groups = scores.shape
    if groups < LEAST_GROUPS or images < LEAST_IMAGES or not oracles:
        return None
    away = []
    for k in range(groups):
        rest = [j for j in range(groups) if j != k]
        shift, slope, floor, rise = _line(scores[:, rest], [one[:, rest] for one in oracles])
        spread = _deviation(scores[:, k], floor, rise)
        away += [np.abs(one[:, k] - shift - slope * scores[:, k]) / spread for one in oracles]
    reach = float(np.quantile(np.concatenate(away), 0.95))
    return Retraining(*_line(scores, oracles), reach, groups, images, len(oracles))


def _line(scores: Array, oracles: Sequence[Array]) -> tuple[float, float, float, float]:
    """Shift and slope by least squares, floor and rise by what they leave.

    Not weighted by the deviations: the few large scores, which matter, would hardly count.
    """
    x, y = np.tile(scores.ravel(), len(oracles)), np.concatenate([one.ravel() for one in oracles])
    design = np.stack([np.ones_like(x), x], axis=1)
    shift, slope = (float(value) for value in np.linalg.lstsq(design, y, rcond=None)[0])
    return shift, slope, *_spread(x, y - shift - slope * x)


def _spread(x: Array, residual: Array) -> tuple[float, float]:
    """floor and rise of residuals whose mean square is floor^2 + (rise x)^2; neither is negative."""
    from scipy.optimize import nnls

    size = float(np.mean(x**2)) or 1.0
    weight = 1.0 / (1.0 + x**2 / size)  # large scores have large squares, and would decide alone
    found, _ = nnls(np.stack([weight, weight * x**2], axis=1), weight * residual**2)
    least = 1e-6 * float(np.mean(residual**2)) + 1e-300
    return float(np.sqrt(max(found[0], least))), float(np.sqrt(found[1]))


def _deviation(x: Array, floor: float, rise: float) -> Array:
    return np.asarray(np.sqrt(floor**2 + (rise * x) ** 2))
