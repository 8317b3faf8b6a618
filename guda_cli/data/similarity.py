"""Nearest training images in pixel space: the plainest guess at a query's group."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guda_cli.data.dataset import Dataset, Pixels
from guda_cli.data.pixel_file import release
from guda_cli.intervals import wilson95

NEIGHBOURS = 5
SAMPLE = 400  # training images that accuracy is measured on, at most
_SPARE = 8  # more neighbours that are looked at, since copies of an image are passed over
_TRAIN_VALUES = 1 << 22  # float64 values of training images held at once: 32 MB


def nearest_groups(
    queries: Pixels, ds: Dataset, *, neighbours: int = NEIGHBOURS, block: int = 256
) -> list[str]:
    """For each query (uint8 [Q, C, H, W]) the group most frequent among its nearest training images.

    Distance is Euclidean over pixels, exact (integers in float64), ties between images by name.
    Groups with equally many of the `neighbours` are told apart by the sum of rank weights (K for the
    nearest, 1 for the last), then by the nearest member. `block` queries are compared at a time.
    """
    if queries.shape[1:] != ds.images.shape[1:]:
        raise ValueError(f"queries are {queries.shape[1:]}, training images {ds.images.shape[1:]}")
    k = max(1, min(neighbours, len(ds)))
    found: list[str] = []
    for start in range(0, len(queries), block):
        indices = _nearest(queries[start : start + block], ds.images, k)
        found += [_vote(row, ds) for row in indices]
    return found


def nearest_members(
    queries: Pixels, ds: Dataset, groups: Collection[str], count: int
) -> npt.NDArray[np.int64]:
    """Indices [Q, at most `count`] of the images of any of `groups` nearest to each query, nearest first.

    Distance and ties as in `nearest_groups`.
    """
    rows = np.flatnonzero(np.any([ds.members(group) for group in groups], axis=0))
    found: npt.NDArray[np.int64] = rows[_nearest(queries, ds.images, min(count, len(rows)), rows)]
    return found


@dataclass(frozen=True)
class Accuracy:
    """How often the nearest images name a right group, on training images left out one at a time."""

    right: int
    images: int
    chance: float
    """The share of the largest group, which a guess would have."""

    @property
    def value(self) -> float:
        """The share of right ones."""
        return self.right / self.images

    @property
    def trusted(self) -> bool:
        """Whether it closes, with 97.5 % confidence, half of the way from the guess to no error.

        A label that is wrong more often than right would mislead, however far above chance it is.
        """
        return wilson95(self.right, self.images)[0] >= (1.0 + self.chance) / 2.0


def accuracy(ds: Dataset, neighbours: int = NEIGHBOURS) -> Accuracy:
    """Of `nearest_groups`, on up to SAMPLE training images; copies of an image do not vote for it."""
    rng = np.random.Generator(np.random.PCG64(0x100C))
    rows = np.sort(rng.permutation(len(ds))[:SAMPLE])
    wanted = min(neighbours + 1 + _SPARE, len(ds))
    right = 0
    for row, near in zip(rows, _nearest(ds.images[rows], ds.images, wanted), strict=True):
        others = [i for i in near if not np.array_equal(ds.images[i], ds.images[row])]
        if others:
            voted = _vote(np.array(others[:neighbours]), ds)
            right += bool(ds.membership[row, ds.groups.index(voted)])
    chance = float(ds.membership.mean(axis=0).max())
    return Accuracy(right, len(rows), chance)


def _nearest(
    queries: Pixels, images: Pixels, k: int, among: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Indices [Q, k] of the nearest images, nearest first; equal distances in order of index.

    With `among` [n] indices into that, of those images alone.
    """
    n = len(images if among is None else among)
    q = queries.reshape(len(queries), -1).astype(np.float64)
    q_norm = np.einsum("qd,qd->q", q, q)[:, None]
    rows = max(k, _TRAIN_VALUES // max(1, q.shape[1]))
    best = np.empty((len(q), 0), dtype=np.int64)
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        x = images[part if among is None else among[part]].reshape(-1, q.shape[1]).astype(np.float64)
        release(images)
        squared = q_norm - 2.0 * (q @ x.T) + np.einsum("nd,nd->n", x, x)
        keys = squared.astype(np.int64) * n + np.arange(start, start + len(x))  # unique, so no ties
        best = np.concatenate([best, keys], axis=1)
        if best.shape[1] > k:
            best = np.partition(best, k - 1, axis=1)[:, :k]
    return np.sort(best, axis=1) % n


def _vote(indices: npt.NDArray[np.int64], ds: Dataset) -> str:
    rows = ds.membership[indices]  # [k, G]
    k = len(indices)
    weights = np.arange(k, 0, -1) @ rows
    first = np.where(rows.any(axis=0), rows.argmax(axis=0), k)
    best = min(range(len(ds.groups)), key=lambda g: (-rows[:, g].sum(), -weights[g], first[g], g))
    return ds.groups[best]
