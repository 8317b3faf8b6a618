"""What the oracle knows of itself: several seeds, their ceiling and their reliability (docs/methods.md).

Scores are [queries, groups], one matrix a seed, over the same queries and groups. None of the seeds should be
the full model's: an unlearned model shares its initialisation, which would flatter it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np

from guda_cli.attribution.rank_agreement import METRICS, PerQuery, finite, metrics, paired
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import MissingError

# Below this share of the scores' own size, what is left after removing means is rounding.
_ROUNDING = 1e-12


def centre(scores: Array) -> Array:
    """`scores` less each column's mean over the queries: the model's overall quality (`--center`)."""
    return np.asarray(scores - scores.mean(axis=0, keepdims=True))


def double_centre(scores: Array) -> Array:
    """`scores` less its row and column means: what group and query say only together."""
    columns, rows = scores.mean(axis=0, keepdims=True), scores.mean(axis=1, keepdims=True)
    return np.asarray(scores - columns - rows + scores.mean())


def mean_oracle(oracles: Sequence[Array]) -> Array:
    """The mean score matrix over seeds."""
    return np.asarray(np.mean(_seeds(oracles, 1), axis=0))


def against_seeds(predicted: Array, oracles: Sequence[Array]) -> PerQuery:
    """Metrics of `predicted` against each seed alone, averaged over seeds: [queries] each.

    Comparable with `ceiling`, which also sets single against single.
    """
    return _averaged([metrics(predicted, oracle) for oracle in _seeds(oracles, 1)])


def ceiling(oracles: Sequence[Array]) -> PerQuery:
    """Metrics of each seed, taken as a prediction, against each other seed, averaged: [queries] each.

    Both directions count: top1, the correlations and RBO are symmetric, the others are not. MissingError
    with fewer than two seeds.
    """
    return _averaged([metrics(one, other) for one, other in permutations(_seeds(oracles, 2), 2)])


def score_correlation(one: Array, other: Array) -> float:
    """Pearson correlation of two score matrices [queries, groups], both less their row and column means.

    What raises all groups' scores of a query alike, or all queries' of a group, says nothing about whom an
    image is owed to: unlearning drifts in common, and retraining too. A single group has no other to be
    compared with, so only its mean is removed. 0 where nothing is left of either.
    """
    one, other = paired(one, other)
    centring = double_centre if one.shape[1] > 1 else centre
    left, right = (_without(scores, centring(scores)).ravel() for scores in (one, other))
    return _correlation(left, right)


def reliability(oracles: Sequence[Array]) -> float:
    """`score_correlation` of two seeds, mean over the pairs of seeds; MissingError with fewer than two."""
    return float(np.mean([score_correlation(*pair) for pair in combinations(_seeds(oracles, 2), 2)]))


def spearman_brown(r: float, seeds: int) -> float:
    """Reliability of the mean of `seeds` oracles of reliability `r`: S r / (1 + (S - 1) r).

    Where `r` is 0 or less the seeds have nothing in common that averaging could bring out: `r` itself.
    """
    return seeds * r / (1.0 + (seeds - 1) * r) if r > 0.0 else r


def _seeds(oracles: Sequence[Array], least: int) -> list[Array]:
    """The seeds' matrices, checked: at least `least`, all finite and of one shape."""
    if len(oracles) < least:
        raise MissingError(
            f"this needs the oracle of at least {least} seeds; there are {len(oracles)}",
            why="how far the oracle can be trusted shows only where two seeds are compared, none of them "
            "the full model's",
            fix="guda train --each-group --seeds 2,3",
        )
    for scores in oracles:
        paired(finite(scores, "oracle"), oracles[0])
    return [np.asarray(scores, np.float64) for scores in oracles]


def _averaged(parts: Sequence[PerQuery]) -> PerQuery:
    return {name: np.mean([part[name] for part in parts], axis=0) for name in METRICS}


def _without(scores: Array, centred: Array) -> Array:
    """`centred`, or zeros where it is only the rounding error of subtracting the means of `scores`."""
    if np.linalg.norm(centred) <= _ROUNDING * np.linalg.norm(scores):
        return np.zeros_like(centred)
    return centred


def _correlation(one: Array, other: Array) -> float:
    """Cosine of two centred vectors; 0 where either is zero."""
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(one @ other / size, -1.0, 1.0)) if size > 0.0 else 0.0
