"""How far two models are apart: a symmetrised Kullback-Leibler divergence over samples of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from guda_cli.diffusion.schedule import Array

FULL, UNLEARNED = "full", "unlearned"
Losses = Mapping[str, Mapping[str, Array]]
"""`losses[model][source]`: weighted minus ELBO [n] under a model of the images drawn from another, or from
itself. Image i of every source is drawn from the same noise."""


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its standard error."""

    value: float
    se: float


@dataclass(frozen=True)
class Distances:
    """Of the model without a group, in the losses' unit.

    `retrained` lies between two trainings that differ by their seed, and is None with one: it is what chance
    leaves between models. `left` is the share of the way from retrained to full that unlearning left,
    (unlearned - retrained) / (full - retrained): 0 is as near as another training, 1 is nothing unlearned. It
    is None where the full model is no farther off than chance.
    """

    unlearned: Estimate
    full: Estimate
    retrained: Estimate | None
    left: Estimate | None


def between(losses: Losses, a: str, b: str) -> Array:
    """Each image's part [n] of how far models `a` and `b` are apart.

    Its mean estimates E_a[L_b - L_a] + E_b[L_a - L_b]: with L the minus log-likelihood KL(a, b) + KL(b, a)
    (Jeffreys 1946), of which this takes bounds.
    """
    return np.asarray(losses[b][a] - losses[a][a] + losses[a][b] - losses[b][b])


def compare(losses: Losses, retrained: Sequence[str]) -> Distances:
    """The distances among the full, the unlearned and the `retrained` models, means over the last's seeds."""
    unlearned, full = (
        np.mean([between(losses, model, one) for one in retrained], axis=0) for model in (UNLEARNED, FULL)
    )
    pairs = [between(losses, a, b) for a, b in combinations(retrained, 2)]
    if not pairs:
        return Distances(_mean(unlearned), _mean(full), None, None)
    chance = np.mean(pairs, axis=0)
    return Distances(_mean(unlearned), _mean(full), _mean(chance), _left(unlearned, full, chance))


def _mean(values: Array) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def _left(unlearned: Array, full: Array, chance: Array) -> Estimate | None:
    """The ratio of means, with the jackknife's error over images."""
    over, under, n = unlearned - chance, full - chance, len(full)
    apart = _mean(under)
    if not apart.value > 2.0 * apart.se:
        return None
    without = (over.sum() - over) / (under.sum() - under)
    se = np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))
    return Estimate(float(over.mean() / under.mean()), float(se))
