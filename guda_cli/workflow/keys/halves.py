"""Random halves of the groups, taken away together: what a datamodel is judged on (docs/methods.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from guda_cli.errors import UsageError
from guda_cli.workflow.keys.removal import Removal


def random_halves(
    groups: Sequence[str],
    count: int,
    seed: int,
    leaves_some: Callable[[Removal], bool] = lambda what: True,
) -> list[Removal]:
    """At most `count` different joint removals of half the groups, in a seeded order.

    They come in pairs: a random half and the other half, so that every pair takes each group away once. Of an
    odd number of groups the halves differ by one. More of them begin with the same ones; where there are
    fewer than `count`, all are returned. A pair of which one half leaves no image (`leaves_some`) is
    passed over, as may be where images are in several groups.

    UsageError for fewer than two groups, or where no pair is left.
    """
    names, rng = sorted(groups), np.random.Generator(np.random.PCG64([0x4A1E5, seed]))
    size = len(names) // 2
    if size < 1:
        raise UsageError(f"{len(names)} groups have no halves", fix="a data set with two groups or more")
    pairs = math.comb(len(names), size) // (1 if len(names) % 2 else 2)
    seen: set[frozenset[str]] = set()
    out: list[Removal] = []
    while len(out) < count and len(seen) < pairs:
        order = rng.permutation(len(names))
        halves = [tuple(sorted(names[i] for i in part)) for part in (order[:size], order[size:])]
        one = frozenset(halves[0] if len(names) % 2 else min(halves))
        if one in seen:
            continue
        seen.add(one)
        both = [Removal(half) for half in halves]
        if all(leaves_some(what) for what in both):
            out += both
    if not out:
        raise UsageError(
            "every half of the groups holds all images",
            why="images are in several groups",
        )
    return out[:count]
