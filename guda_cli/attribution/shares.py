"""What each of several groups contributes to a value of all their coalitions: Shapley and Banzhaf shares.

A game of n players has a value for every coalition. A player's contribution to a coalition of others is what
its joining adds. Its Shapley share is the mean of these over coalitions of each size, then over sizes
(Shapley 1953): the shares sum to the value of all players together. Its Banzhaf share is the mean over all
coalitions alike (Banzhaf 1965). The empty coalition is worth 0 by convention; only differences count.

Here v(S) = ELBO(full) - ELBO(model with the groups S removed): the loss that their removal together makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError

Coalition = frozenset[int]


class Shares(NamedTuple):
    """Shares [players, ...] and their standard errors over permutations; NaN with a single permutation."""

    value: Array
    se: Array


def shapley(values: Array) -> Array:
    """Exact Shapley shares [n, ...] of `values` [2^n, ...], coalition S being number sum of 2^i over i in S.

    DataError where the number of values is no power of two, or only 1.
    """
    n = _players(values)
    return _semivalue(values, [1.0 / (n * math.comb(n - 1, size)) for size in range(n)])


def banzhaf(values: Array) -> Array:
    """Exact Banzhaf shares [n, ...] of `values` [2^n, ...]; see `shapley`."""
    n = _players(values)
    return _semivalue(values, [0.5 ** (n - 1)] * n)


def sampled_shapley(orders: Sequence[Sequence[int]], value: Callable[[Coalition], Array]) -> Shares:
    """Shapley shares from random permutations of 0..n-1 (Castro et al. 2009), unbiased.

    Each player's share is the mean, over the permutations, of its contribution to those before it. `value` is
    asked for the coalitions that begin some permutation, and for none of them twice. DataError without a
    permutation, or with one that is none.
    """
    return _mean(_marginals(orders, value))


def sampled_banzhaf(orders: Sequence[Sequence[int]], value: Callable[[Coalition], Array]) -> Shares:
    """Banzhaf shares from the same contributions as `sampled_shapley`, unbiased.

    In a permutation all numbers k of players before one are equally likely, in a random coalition of the
    n - 1 others k has probability C(n - 1, k) / 2^(n - 1): contributions are weighted by the ratio.
    """
    marginals, n = _marginals(orders, value), len(orders[0])
    places = np.argsort(np.asarray(orders), axis=1)
    weights = np.array([n * math.comb(n - 1, k) / 2.0 ** (n - 1) for k in range(n)])[places]
    return _mean(marginals * weights.reshape(*weights.shape, *[1] * (marginals.ndim - 2)))


def excess(together: Array, one: Array, other: Array) -> Array:
    """v(a, b) - v(a) - v(b): above 0 where the two stand in for each other, so that only losing both hurts.

    Under 0 where what one loses the other would have lost, too. Arrays of one shape.
    """
    return np.asarray(together - one - other)


def coalition_number(players: Sequence[int] | Coalition) -> int:
    """The number of a coalition in `values`."""
    return sum(1 << player for player in players)


def _players(values: Array) -> int:
    n = len(values).bit_length() - 1
    if n < 1 or len(values) != 1 << n:
        raise DataError(
            f"{len(values)} values are not those of every coalition",
            why="n players have 2^n of them",
        )
    return n


def _semivalue(values: Array, weights: Sequence[float]) -> Array:
    """Contributions of each player, weighted by the size of the coalition that it joins: [n, ...]."""
    values, n = np.asarray(values, np.float64), _players(values)
    numbers = np.arange(len(values))
    sizes = np.array([int(number).bit_count() for number in numbers])
    out = []
    for player in range(n):
        without = numbers[numbers & (1 << player) == 0]
        marginal = values[without | (1 << player)] - values[without]
        out.append(np.tensordot(np.asarray(weights)[sizes[without]], marginal, axes=1))
    return np.stack(out)


def _marginals(orders: Sequence[Sequence[int]], value: Callable[[Coalition], Array]) -> Array:
    """Each player's contribution in each permutation: [permutations, n, ...]."""
    if not orders or any(sorted(order) != list(range(len(orders[0]))) for order in orders):
        raise DataError("shares are sampled from permutations of all players, one at least")
    known: dict[Coalition, Array] = {}

    def worth(coalition: Coalition) -> Array:
        if coalition not in known:
            known[coalition] = np.asarray(value(coalition), np.float64)
        return known[coalition]

    out = []
    for order in orders:
        # The empty coalition is worth 0, of whatever shape the others' values are.
        first = worth(frozenset(order[:1]))
        worths = [np.zeros_like(first), first]
        worths += [worth(frozenset(order[:k])) for k in range(2, len(order) + 1)]
        gained = dict(zip(order, np.diff(np.stack(worths), axis=0), strict=True))
        out.append(np.stack([gained[player] for player in range(len(order))]))
    return np.stack(out)


def _mean(marginals: Array) -> Shares:
    count = len(marginals)
    if count < 2:
        return Shares(marginals.mean(axis=0), np.full(marginals.shape[1:], np.nan))
    return Shares(marginals.mean(axis=0), marginals.std(axis=0, ddof=1) / math.sqrt(count))
