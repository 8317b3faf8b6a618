"""Which scores stand out: calibrated on images that are known to be of other groups (docs/methods.md).

Random sets of images are no null for groups: they have nothing in common, and the scores of coherent groups
spread two to three times as far over images that are of no group at all. What a group's score must beat is
what groups score on images that are *not* theirs. Training images of other groups are such images, and their
scores need no further model. Scores are made comparable between images, by taking away what all groups score
there, and between groups, by each one's median and deviation on others' images.

Conformal prediction (Vovk et al. 2005): if a query's scores are exchangeable with those of the calibration
images, the p-value of the largest is uniform, whatever its distribution; its tail is smoothed here. Where an
image is unlike the training data that premise fails (`unlikeness`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from guda_cli.data.dataset import Mask
from guda_cli.diffusion.schedule import Array

CENTRED = 5  # groups from which on an image's median score is taken away: the median is then no group's own
DECILES = 2.563  # deviations that lie between the first and the last decile of a normal
TAIL = 0.25  # of the calibration images, by which p-values beyond are smoothed
FOLDS = 5
LEAST = 40  # images below which no verdict is given: p-values of 5 % need 19, an outlier among them more


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores [n, G] of n images, whether each is of the group [n, G], and which are unlike the others [n].

    As queries that are unlike the data get no verdict, those among these images are not compared with.
    """

    scores: Array
    members: Mask
    strange: Mask

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def _of_others(self) -> Array:
        """The excess [n, G] of scores, NaN where the image is the group's own, or unlike the others."""
        others = np.where(self.members | self.strange[:, None], np.nan, self.scores)
        return others - self._usual(others)

    def _usual(self, scores: Array) -> Array:
        """What an image's groups usually score [Q, 1]: their median, 0 where they are few.

        Whatever is removed, some images get harder and some easier: what all groups have in common is owed to
        none of them.
        """
        if scores.shape[1] < CENTRED:
            return np.zeros((len(scores), 1))
        return _quietly(np.nanmedian, scores, axis=1, keepdims=True)

    def _folds(self) -> Iterator[Mask]:
        """Which images [n] are in each of FOLDS parts."""
        fold_of = np.random.default_rng(0).permutation(len(self)) % FOLDS  # whatever order groups come in
        for fold in range(FOLDS):
            mine: Mask = fold_of == fold
            yield mine

    @cached_property
    def others(self) -> tuple[Array, Array]:
        """Median and deviation [G] of groups' excess on images of others; NaN where there are none.

        Large groups score higher on everything, and vary more: removing them takes more of the model away.
        The deviation is that of a normal with the same deciles: an outlier does not widen it, so the images
        that it is learnt from are no nearer to it than queries are.
        """
        low, middle, high = _quietly(np.nanquantile, self._of_others, q=[0.1, 0.5, 0.9], axis=0)
        deviation = (high - low) / DECILES
        return middle, np.where(deviation > 0, deviation, np.nan)

    def z(self, scores: Array) -> Array:
        """How far scores [Q, G] lie above what the group scores on others' images, in their deviations.

        All less what the image's groups usually score.
        """
        middle, deviation = self.others
        return np.asarray((scores - self._usual(scores) - middle) / deviation)

    @cached_property
    def largest(self) -> Array:
        """The largest z that another's group has, of each image; sorted [n]."""
        middle, deviation = self.others
        others = (self._of_others - middle) / deviation
        found = np.where(np.isnan(others), -np.inf, others).max(axis=1)
        return np.sort(found[np.isfinite(found)])

    @cached_property
    def factor(self) -> float:
        """How many groups a query is tested for, over how many the largest was taken of."""
        tested = np.isfinite(self.others[1])
        others = (~self.members[:, tested]).sum(axis=1)
        return float(tested.sum() / others[others > 0].mean()) if others.any() else 1.0

    @cached_property
    def _tail(self) -> tuple[float, float, float]:
        """Where the upper tail of `largest` begins, its share, and its mean excess.

        It is smoothed by an exponential (a generalised Pareto tail of shape 0): the threshold is then half as
        much at the mercy of single images, and of the noise they were scored with, as an order statistic.
        """
        n = len(self.largest)
        k = max(1, int(np.ceil(TAIL * n)))
        start = float(self.largest[max(0, n - k - 1)])
        return start, k / n, max(float(np.mean(self.largest[n - k :]) - start), 1e-12)

    def p_values(self, scores: Array) -> Array:
        """P-values [Q, G] of scores [Q, G], family-wise: of so high a score of any group not its own.

        At least 1 / (n + 1): rarer than anything that was seen is not known.
        """
        n, (start, share, excess) = len(self.largest), self._tail
        found = self.z(scores)
        above = n - np.searchsorted(self.largest, found, side="left")
        with np.errstate(over="ignore", invalid="ignore"):
            tail = share * np.exp(-(found - start) / excess)
            p = np.where(found > start, np.minimum(tail, share), (1.0 + above) / (1.0 + n))
        p = np.clip(self.factor * p, 1.0 / (1.0 + n), 1.0)
        return np.where(np.isfinite(found), p, np.nan)

    def threshold(self, level: float) -> float:
        """The z from which on a group's p-value is at most `level`; infinite where none is."""
        n, (start, share, excess) = len(self.largest), self._tail
        if level < 1.0 / (1.0 + n):
            return float("inf")
        if level >= self.factor * share:
            raise ValueError(f"the level {level:g} is not in the tail")
        return float(start + excess * np.log(self.factor * share / level))

    def rates(self, level: float) -> Rates:
        """How often the verdicts name a wrong group, or the own one, judged on images not calibrated on."""
        wrong, own = (np.zeros(len(self), dtype=np.bool_) for _ in range(2))
        for mine in self._folds():
            rest = Calibration(self.scores[~mine], self.members[~mine], self.strange[~mine])
            named: Mask = (rest.p_values(self.scores[mine]) <= level) & ~self.strange[mine, None]
            wrong[mine] = (named & ~self.members[mine]).any(axis=1)
            own[mine] = (named & self.members[mine]).any(axis=1)
        return Rates(len(self), float(np.mean(wrong)), float(np.mean(own)), float(np.mean(self.strange)))


@dataclass(frozen=True)
class Rates:
    """Of so many images of known groups: shares with a wrong group named, their own, and called unlike."""

    images: int
    wrong: float
    own: float
    unlike: float


def _quietly(function: Callable[..., Array], values: Array, **options: Any) -> Array:
    """NaN, without a word, where there is no value: a group of all images has no others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(function(values, **options))
