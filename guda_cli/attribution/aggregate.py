"""From scores of training images to scores of groups, and which images are scored at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guda_cli import typed_number
from guda_cli.data.dataset import Mask
from guda_cli.diffusion.noise import seed_of
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError, UsageError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Aggregation:
    """How a group's score is made of its images': `kind` mean | sum | max | top, the best `count` for top."""

    kind: str = "mean"
    count: int = 0

    def __str__(self) -> str:
        return f"top:{self.count}" if self.kind == "top" else self.kind


def parse_aggregation(text: str) -> Aggregation:
    """`mean`, `sum`, `max`, or `top:M` (mean of the group's M highest scores); UsageError on others."""
    kind, _, count = text.partition(":")
    if text in ("mean", "sum", "max"):
        return Aggregation(kind)
    if kind == "top" and (most := typed_number.whole(count)):
        return Aggregation("top", most)
    raise UsageError(
        f"unknown aggregation '{text}'",
        why="it is one of mean, sum, max, top:M (M at least 1)",
        fix="--aggregate mean",
    )


def group_scores(
    scores: Array, membership: Mask, aggregation: Aggregation | None = None, *, groups: Sequence[str] = ()
) -> Array:
    """Scores of groups [Q, G] from scores of images [Q, N] and membership [N, G]; the mean by default.

    A group of fewer than M images is the mean of all of them under `top:M`. An image counts in each of
    its groups. DataError naming the group (from `groups`, else its number) that has no image.
    """
    how = aggregation or Aggregation()
    for k in np.flatnonzero(~membership.any(axis=0)).tolist():
        name = f"'{groups[k]}'" if groups else f"number {k}"
        raise DataError(
            f"group {name} has no training image among those scored",
            why=f"{len(membership)} images were scored",
            fix="score more training images a group",
        )
    columns = [_one_group(scores[:, membership[:, k]], how) for k in range(membership.shape[1])]
    return np.stack(columns, axis=1)


def _one_group(scores: Array, how: Aggregation) -> Array:
    if how.kind == "max":
        return np.asarray(scores.max(axis=1))
    ordered = np.sort(scores, axis=1)  # so that the order of the training set leaves the sum as it is
    if how.kind == "sum":
        return np.asarray(ordered.sum(axis=1))
    return np.asarray((ordered[:, -how.count :] if how.kind == "top" else ordered).mean(axis=1))


def top_instances(scores: Array, k: int) -> Indices:
    """Indices [Q, min(k, N)] of the highest of scores [Q, N], highest first; ties by the lower index."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)


def subset(
    membership: Mask, per_group: int | None, seed: int, digests: Sequence[str] | None = None
) -> Indices:
    """Which training images to score: indices in ascending order, `per_group` for each group, or all.

    Images stand in one seeded random order, shared by all groups; by their digests, where given, and
    then the choice does not depend on the order of the training set. Each group, the smallest first, takes
    its next images in that order until it has `per_group` or no more; images that it shares with
    groups before it count. So a group has at most `per_group` images where groups do not overlap; where
    they do, other groups may bring it more, and there are never more than per_group * G in all.
    UsageError for per_group < 1.
    """
    if per_group is None:
        return np.arange(len(membership))
    if per_group < 1:
        raise UsageError(f"{per_group} training images a group", fix="1 or more, or leave it out for all")
    order = _shuffled(len(membership), seed, digests)
    chosen = np.zeros(len(membership), dtype=np.bool_)
    for k in np.argsort(membership.sum(axis=0), kind="stable"):
        have = int((chosen & membership[:, k]).sum())
        candidates = order[membership[order, k] & ~chosen[order]]
        chosen[candidates[: max(0, per_group - have)]] = True
    return np.flatnonzero(chosen)


def evenly(membership: Mask, count: int, digests: Sequence[str], seed: int = 0) -> Indices:
    """`count` images, as evenly from the groups as their sizes allow: indices in ascending order.

    In a seeded order of their digests: first one image of each group, then a second, and so on. Groups that
    have no more leave their share to the others. An image of several groups goes by the one with fewest.
    """
    order, had = _shuffled(len(membership), seed, digests), np.zeros(membership.shape[1], dtype=np.int64)
    turn = np.zeros(len(membership), dtype=np.int64)
    for i in order:
        mine = membership[i]
        turn[i] = had[mine].min()
        had[mine] += 1
    return np.sort(order[np.argsort(turn[order], kind="stable")][:count])


def _shuffled(n: int, seed: int, digests: Sequence[str] | None) -> Indices:
    """A random order of 0..n-1: of the positions, or of the digests."""
    if digests is None:
        return np.random.Generator(np.random.PCG64([0x5B5E, seed])).permutation(n)
    keys = [seed_of("guda.subset/1", seed, digest) for digest in digests]
    return np.argsort(np.array(keys, dtype=np.int64), kind="stable")
