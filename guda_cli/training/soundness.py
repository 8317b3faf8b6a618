"""Whether a trained model has learnt: its loss by band of noise, beside those of models that know nothing.

Two know nothing: the same network before its first step, and the mean, which answers every noisy image with
what is known of its pixels one by one. A model that is not clearly better than both draws noise, and what is
said of its groups means nothing. No claim is made that a better one is good. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from guda_cli.diffusion.schedule import Array

BANDS = 4
ENTRIES = 128  # losses a band, at most
LEAST = 8
SHARE = 0.1  # of the training's forwards that the check takes, at most
GAIN = 0.05  # by this share at least the loss lies under the mean's, over all bands
# Where little but noise is left the mean is nearly the best answer, and a network that predicts noise comes
# close to it at best: the digits' stays 0.2 % of the untrained loss behind, after a fifth of its steps 1.3 %.
ALIKE = 0.005
PASSED, DOUBTFUL, FAILED = "passed", "doubtful", "failed"


@dataclass(frozen=True)
class Band:
    """Mean losses per pixel over timesteps `first` to `last`; by how much the mean's is higher (± s.e.)."""

    first: int
    last: int
    trained: float
    untrained: float
    mean: float
    gain: float
    gain_se: float

    @property
    def learnt(self) -> bool:
        """Whether the model is better than the untrained one, and than the mean or as good as that."""
        return self.trained < self.untrained and self.gain > -ALIKE * self.untrained


@dataclass(frozen=True)
class TrainingCheck:
    """What was measured, and what it says of a full model."""

    verdict: str
    why: str
    bands: tuple[Band, ...]

    @property
    def sentence(self) -> str:
        """The verdict as a warning has it."""
        return f"{self.verdict} check of the full model: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a stored record."""
        return {"verdict": self.verdict, "why": self.why, "bands": [asdict(band) for band in self.bands]}

    @staticmethod
    def of(values: Mapping[str, Any]) -> TrainingCheck:
        """The inverse of `to_dict`."""
        return TrainingCheck(values["verdict"], values["why"], tuple(Band(**b) for b in values["bands"]))


def entries_of(forwards: float) -> int:
    """Losses a band after a training of so many forward-equivalents: two models are looked at."""
    return max(LEAST, min(ENTRIES, int(SHARE * forwards / (2 * BANDS))))


def judge(T: int, trained: Array, untrained: Array, mean: Array) -> TrainingCheck:
    """What losses at the same places, timesteps in order, say of the trained model.

    It failed where over all it is no better than the untrained network, or than the mean by less than GAIN;
    it is doubtful where it is behind in some band.
    """
    parts = zip(*(np.array_split(losses, BANDS) for losses in (trained, untrained, mean)), strict=True)
    bands = tuple(_band(1 + T * i // BANDS, T * (i + 1) // BANDS, *part) for i, part in enumerate(parts))
    gain = 1.0 - float(trained.mean()) / float(mean.mean())
    behind = [band for band in bands if not band.learnt]
    against = f"its loss is {abs(gain):.0%} {'under' if gain > 0 else 'over'} that of the mean image"
    if not trained.mean() < untrained.mean():
        return TrainingCheck(FAILED, "it is no better than before the first step", bands)
    if not gain > GAIN:
        return TrainingCheck(FAILED, f"{against}: it draws noise", bands)
    if behind:
        where = ", ".join(f"t {band.first} to {band.last}" for band in behind)
        return TrainingCheck(DOUBTFUL, f"{against}, but not at {where}", bands)
    return TrainingCheck(PASSED, against, bands)


def _band(first: int, last: int, trained: Array, untrained: Array, mean: Array) -> Band:
    gain = mean - trained
    se = float(gain.std(ddof=1)) / float(np.sqrt(len(gain)))
    a, b, c = (float(losses.mean()) for losses in (trained, untrained, mean))
    return Band(first, last, a, b, c, float(gain.mean()), se)
