"""`random`: the floor of every table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guda_cli.attribution.rivals.engine import GroupEngine
from guda_cli.diffusion.noise import seed_of
from guda_cli.diffusion.schedule import Array


def random_scores(digests: Sequence[str], names: Sequence[str], seed: int) -> Array:
    """Uniform numbers in [0, 1), float64 [queries, names]: each a pure function of (digest, name, seed).

    `names` are groups or the digests of training images.
    """
    rows = [[seed_of("guda.random/1", seed, q, name) >> 10 for name in names] for q in digests]
    return np.array(rows, dtype=np.float64).reshape(len(digests), len(names)) / 2.0**53


class RandomScores(GroupEngine):
    """`random_scores` of the queries and the names of groups."""

    def group_scores(self, digests: Sequence[str], names: Sequence[str]) -> Array:
        """See `GroupEngine`."""
        return random_scores(digests, names, int(self.values["seed"]))
