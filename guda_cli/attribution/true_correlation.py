"""How scores go with what infinitely many oracle seeds would say: correlation corrected for reliability.

The mean oracle is truth plus noise of training. Noise lowers every correlation with it by the same factor,
the root of its reliability; divided by that (Spearman 1904, correction for attenuation), what is left is the
correlation with the truth. What the seeds share, such as the noise draws of their ELBO, counts as truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from guda_cli.attribution.bootstrap import percentiles, shares_drawn
from guda_cli.attribution.oracle_seeds import (
    mean_oracle,
    reliability,
    score_correlation,
    spearman_brown,
)
from guda_cli.attribution.rank_agreement import paired
from guda_cli.diffusion.schedule import Array

LEAST = 0.1
"""The least reliability of the mean oracle that is divided by: below it the root is all error."""
# Below this share of the second moment, a resample's variance is rounding (it holds one query only, say).
_ROUNDING = 1e-12

Estimate = tuple[float, float, float]


class Correlation(NamedTuple):
    """With the mean oracle, and corrected for its reliability: each a value and its 95 % interval.

    `true` is None with one seed, and where the mean's reliability is under `LEAST`. It is not cut at 1, which
    it can pass by chance.
    """

    plain: Estimate
    true: Estimate | None


class OracleNoise:
    """The mean of `oracles` (one matrix [queries, groups] a seed), its reliability, and bootstrap resamples.

    All that is compared with one of these sees the same resamples of queries, which depend on `seed`,
    `resamples` and the number of queries alone. In each, the reliability is worked out anew; under `LEAST` it
    counts as that.
    """

    def __init__(self, oracles: Sequence[Array], *, seed: int = 0, resamples: int = 2000) -> None:
        self.oracles, self.mean = list(oracles), mean_oracle(oracles)
        self._drawn = shares_drawn(len(self.mean), seed, resamples)

    @cached_property
    def single(self) -> float | None:
        """Reliability of one seed; None if there is no other."""
        return reliability(self.oracles) if len(self.oracles) > 1 else None

    @property
    def of_mean(self) -> float | None:
        """Reliability of the mean over the seeds."""
        return None if self.single is None else spearman_brown(self.single, len(self.oracles))

    @property
    def reliable(self) -> bool:
        """Whether a correlation can be corrected."""
        return self.of_mean is not None and self.of_mean >= LEAST

    def correlation(self, predicted: Array) -> Correlation:
        """Of `predicted` [queries, groups] with the mean oracle; DataError for another shape."""
        value = score_correlation(predicted, self.mean)
        drawn = resampled_correlations(predicted, self.mean, self._drawn)
        plain = (value, *percentiles(drawn))
        if not self.reliable or self.of_mean is None:
            return Correlation(plain, None)
        corrected = drawn / np.sqrt(self._mean_drawn)
        return Correlation(plain, (value / float(np.sqrt(self.of_mean)), *percentiles(corrected)))

    def of_another_seed(self) -> Correlation | None:
        """What one more retraining would have: sqrt(r r_mean) with the mean oracle, sqrt(r) with the truth.

        r is the reliability of one seed, r_mean that of the mean. None where `reliable` does not hold.
        """
        if not self.reliable or self.single is None or self.of_mean is None:
            return None
        single = np.maximum(self._single_drawn, 0.0)
        plain, true = np.sqrt(single * self._mean_drawn), np.sqrt(single)
        return Correlation(
            (float(np.sqrt(self.single * self.of_mean)), *percentiles(plain)),
            (float(np.sqrt(self.single)), *percentiles(true)),
        )

    @cached_property
    def _single_drawn(self) -> Array:
        """Reliability of one seed in each resample: [resamples]."""
        pairs = combinations(self.oracles, 2)
        return np.asarray(
            np.mean([resampled_correlations(one, other, self._drawn) for one, other in pairs], axis=0)
        )

    @cached_property
    def _mean_drawn(self) -> Array:
        """Reliability of the mean in each resample, `LEAST` at least: [resamples]."""
        r, seeds = np.maximum(self._single_drawn, 0.0), len(self.oracles)
        return np.asarray(np.maximum(seeds * r / (1.0 + (seeds - 1) * r), LEAST))


def resampled_correlations(one: Array, other: Array, drawn: Array) -> Array:
    """`score_correlation` of two matrices [queries, groups] in each resample: [resamples].

    `drawn` [resamples, queries] is the share of each query, a row's sum being 1. Row means do not depend on
    the resample; column means do.
    """
    left, right = (_rows_centred(scores) for scores in paired(one, other))
    covariance = _covariance(left, right, drawn)
    size = np.sqrt(_variance(left, drawn) * _variance(right, drawn))
    ratio = np.divide(covariance, size, out=np.zeros(len(drawn)), where=size > 0.0)
    return np.asarray(np.clip(ratio, -1.0, 1.0))


def _rows_centred(scores: Array) -> Array:
    """Less the row means, where there are columns to compare; and less the columns' means over all queries.

    The last changes no covariance; it keeps large column means from swallowing digits.
    """
    if scores.shape[1] > 1:
        scores = scores - scores.mean(axis=1, keepdims=True)
    return np.asarray(scores - scores.mean(axis=0, keepdims=True))


def _covariance(left: Array, right: Array, drawn: Array) -> Array:
    return np.asarray(drawn @ (left * right).sum(axis=1) - ((drawn @ left) * (drawn @ right)).sum(axis=1))


def _variance(scores: Array, drawn: Array) -> Array:
    """Of each resample, 0 where it is only rounding."""
    found = _covariance(scores, scores, drawn)
    whole = (scores**2).sum(axis=1).mean() + drawn @ (scores**2).sum(axis=1)
    return np.where(found > _ROUNDING * whole, found, 0.0)
