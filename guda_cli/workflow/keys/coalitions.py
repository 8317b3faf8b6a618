"""Which joint removals shares over several groups need (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

import numpy as np

from guda_cli.data.sources.names import composed
from guda_cli.errors import UsageError
from guda_cli.workflow.keys.removal import Removal

EXACT = 4
"""So many groups have few enough coalitions for all of them to be made."""
MOST = 1000
"""Permutations that are looked for."""


def check_players(players: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """The groups among which shares are worked out, sorted. UsageError unless they are some of the data's.

    All of the data's cannot be: with every group removed there is no image to train on.
    """
    names = tuple(sorted(set(map(composed, players))))
    joint = [name for name in names if name not in known]
    if joint:
        raise UsageError(
            f"'{joint[0]}' is no group of the data", why="shares are those of single groups, named one by one"
        )
    if len(names) < 2 or len(names) >= len(known):
        raise UsageError(
            f"shares among {len(names)} of {len(known)} groups",
            why="it takes two groups to share, and one that is left when all of them are removed",
            fix="--group A --group B",
        )
    return names


def permutations(players: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """`count` random permutations of 0..players-1; more of them begin with the same ones."""
    each = (np.random.Generator(np.random.PCG64([0xC0A1, seed, i])) for i in range(count))
    return [tuple(rng.permutation(players).tolist()) for rng in each]


def joint(players: Sequence[str], members: Iterable[int]) -> Removal:
    """The removal of a coalition, given by the numbers of its players."""
    return Removal(tuple(sorted(players[i] for i in members)))


def every(players: Sequence[str]) -> list[Removal]:
    """Every coalition but the empty one, small ones first."""
    sizes = range(1, len(players) + 1)
    return [joint(players, part) for size in sizes for part in combinations(range(len(players)), size)]


def beginnings(players: Sequence[str], orders: Sequence[Sequence[int]]) -> list[Removal]:
    """Each player alone, then what every permutation of `orders` begins with; once each."""
    found = dict.fromkeys(joint(players, (i,)) for i in range(len(players)))
    found |= dict.fromkeys(joint(players, order[:k]) for order in orders for k in range(1, len(order) + 1))
    return list(found)


def needed(players: Sequence[str], count: int, seed: int) -> list[Removal]:
    """The removals that shares among `players` are made of: all, or those of `count` permutations."""
    if len(players) <= EXACT:
        return every(players)
    return beginnings(players, permutations(len(players), count, seed))
