"""How unlike the training data an image is, to the full model: a distance in its own features.

Verdicts hold for images like those they are calibrated on. What an image has to be like is known by the
features of a late layer: Mahalanobis' distance to the nearest of the groups' means, with one covariance for
all (Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples"), shrunk after
Ledoit & Wolf (2004), as there may be more features than images. A distance is judged by those of training
images, each measured without its own fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guda_cli.data.dataset import Mask
from guda_cli.diffusion.schedule import Array

WIDTH = 512  # features at most: more are projected at random (Johnson & Lindenstrauss 1984)
OWN_MEAN = 10  # images from which on a group has a mean of its own; smaller groups share one
FOLDS = 10


@dataclass(frozen=True, eq=False)
class Space:
    """Where features [F] are measured: shifted, scaled, projected and whitened; means [K, D] of groups."""

    shift: Array
    scale: Array
    whitening: Array
    means: Array

    def distances(self, features: Array) -> Array:
        """How far features [Q, F] lie from the nearest mean [Q]."""
        at = _projected((features - self.shift) / self.scale) @ self.whitening
        away = ((at[:, None, :] - self.means[None]) ** 2).sum(axis=2)
        return np.asarray(np.sqrt(away.min(axis=1)))

    @property
    def arrays(self) -> dict[str, Array]:
        """The parts by name, to be stored."""
        return {name: getattr(self, name) for name in ("shift", "scale", "whitening", "means")}

    @staticmethod
    def of(arrays: Mapping[str, Array]) -> Space:
        """The inverse of `arrays`; others are left alone."""
        return Space(*(np.asarray(arrays[name]) for name in ("shift", "scale", "whitening", "means")))


def fit(features: Array, members: Mask) -> Space:
    """The space of training images' features [n, F], with `members` [n, G] of groups."""
    from sklearn.covariance import ledoit_wolf  # takes a second to import

    shift, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.maximum(scale, 1e-6 * max(float(scale.max()), 1e-12))  # a channel that never changes
    at = _projected((features - shift) / scale)
    label = _labels(members)
    means = np.stack([at[label == k].mean(axis=0) for k in np.unique(label)])
    residuals = at - means[np.unique(label, return_inverse=True)[1]]
    values, axes = np.linalg.eigh(ledoit_wolf(residuals, assume_centered=True)[0])
    whitening = axes / np.sqrt(np.maximum(values, 1e-12 * max(float(values.max()), 1e-300)))
    return Space(shift, scale, whitening, means @ whitening)


def left_out(features: Array, members: Mask) -> Array:
    """The distance of each image [n] in the space of those of other folds."""
    out = np.empty(len(features))
    fold_of = np.random.default_rng(0).permutation(len(features)) % FOLDS  # whatever order groups come in
    for fold in range(FOLDS):
        mine = fold_of == fold
        if mine.any():
            out[mine] = fit(features[~mine], members[~mine]).distances(features[mine])
    return out


def p_values(known: Array, distances: Array) -> Array:
    """Which share of images like the `known` [n] lies as far as each of `distances` [Q], or farther."""
    above = len(known) - np.searchsorted(np.sort(known), distances, side="left")
    return np.asarray((1.0 + above) / (1.0 + len(known)))


def _labels(members: Mask) -> npt.NDArray[np.int64]:
    """Of which mean each image [n] is: its first group that has one, or the rest's."""
    large = members & (members.sum(axis=0) >= OWN_MEAN)
    labels: npt.NDArray[np.int64] = np.where(large.any(axis=1), large.argmax(axis=1), members.shape[1])
    return labels


def _projected(values: Array) -> Array:
    """Values [n, F], at random [n, WIDTH] where there are more; the same projection for the same F."""
    n = values.shape[1]
    if n <= WIDTH:
        return values
    return np.asarray(values @ np.random.default_rng(n).normal(size=(n, WIDTH)) / np.sqrt(WIDTH))
