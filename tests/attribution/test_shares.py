"""Shapley and Banzhaf shares: by hand, and by the axioms that define them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from guda_cli.attribution.shares import (
    banzhaf,
    coalition_number,
    excess,
    sampled_banzhaf,
    sampled_shapley,
    shapley,
)
from guda_cli.errors import DataError

# Players a, b, c: the coalitions {}, a, b, ab, c, ac, bc, abc.
GLOVES = np.array([0.0, 0, 0, 0, 0, 1, 1, 1])  # a and b own a left glove each, c a right one
GAME = np.array([0.0, 6, 12, 42, 0, 12, 30, 60])


@st.composite
def games(draw: st.DrawFn) -> np.ndarray:
    """The values of up to five players' coalitions, of two queries; the empty one is worth 0."""
    n = draw(st.integers(1, 5))
    values = draw(arrays.arrays(np.int64, (2**n, 2), elements=st.integers(-800, 800))) / 8.0
    values[0] = 0.0
    return np.asarray(values)


def players(values: np.ndarray) -> int:
    return len(values).bit_length() - 1


def worth(values: np.ndarray):
    return lambda coalition: values[coalition_number(coalition)]


def test_by_hand() -> None:
    """GAME: a joins {} for 6, b for 30, c for 12, bc for 30; weights 1/3, 1/6, 1/6, 1/3, or 1/4 each.

    b: 12, 36, 30, 48. c: 0, 6, 18, 18.
    """
    np.testing.assert_allclose(shapley(GAME), [6 / 3 + 30 / 6 + 12 / 6 + 30 / 3, 31, 10])
    np.testing.assert_allclose(banzhaf(GAME), [78 / 4, 126 / 4, 42 / 4])
    np.testing.assert_allclose(shapley(GLOVES), [1 / 6, 1 / 6, 4 / 6])
    np.testing.assert_allclose(banzhaf(GLOVES), [1 / 4, 1 / 4, 3 / 4])
    assert excess(GAME[3], GAME[1], GAME[2]) == 24


def test_sampled_by_hand() -> None:
    """Orders abc and cba: a gains 6 and 30, b 36 and 30, c 18 and 0. The middle weighs 3/2, the ends 3/4."""
    found = sampled_shapley([(0, 1, 2), (2, 1, 0)], worth(GAME))
    np.testing.assert_allclose(found.value, [18, 33, 9])
    np.testing.assert_allclose(found.se, [12, 3, 9])  # half the distance of two
    weighted = sampled_banzhaf([(0, 1, 2), (2, 1, 0)], worth(GAME))
    np.testing.assert_allclose(weighted.value, [13.5, 49.5, 6.75])
    assert np.isnan(sampled_shapley([(0, 1, 2)], worth(GAME)).se).all()


@given(games())
def test_shapley_shares_sum_to_the_whole(values: np.ndarray) -> None:
    np.testing.assert_allclose(shapley(values).sum(axis=0), values[-1], atol=1e-9)


@given(games(), st.randoms(use_true_random=False))
def test_names_of_players_are_nothing(values: np.ndarray, random) -> None:
    """Symmetry: players renamed have each other's shares."""
    n = players(values)
    order = list(range(n))
    random.shuffle(order)
    renamed = np.empty_like(values)
    for number in range(2**n):
        renamed[coalition_number([order[i] for i in range(n) if number >> i & 1])] = values[number]
    for share in (shapley, banzhaf):
        np.testing.assert_allclose(share(renamed)[order], share(values), atol=1e-9)


@given(games(), st.integers(-5, 5))
def test_one_who_adds_the_same_to_all_has_that(values: np.ndarray, own: int) -> None:
    """The dummy: a further player who adds `own` to whatever it joins; the others' shares stay."""
    larger = np.concatenate([values, values + own])
    for share in (shapley, banzhaf):
        found = share(larger)
        np.testing.assert_allclose(found[-1], own, atol=1e-9)
        np.testing.assert_allclose(found[:-1], share(values), atol=1e-9)


@given(games(), st.integers(-3, 3))
def test_shares_are_linear(values: np.ndarray, factor: int) -> None:
    other = values[::-1] - values[-1]
    for share in (shapley, banzhaf):
        expected = share(values) + factor * share(other)
        np.testing.assert_allclose(share(values + factor * other), expected, atol=1e-8)


@given(games())
def test_all_permutations_give_the_exact_shares(values: np.ndarray) -> None:
    orders = list(itertools.permutations(range(players(values))))
    np.testing.assert_allclose(sampled_shapley(orders, worth(values)).value, shapley(values), atol=1e-9)
    np.testing.assert_allclose(sampled_banzhaf(orders, worth(values)).value, banzhaf(values), atol=1e-9)


def test_standard_errors_are_as_large_as_the_errors() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(64, 1)).cumsum(axis=0)
    values[0] = 0
    for sampled, exact in ((sampled_shapley, shapley(values)), (sampled_banzhaf, banzhaf(values))):
        found = [sampled([rng.permutation(6) for _ in range(30)], worth(values)) for _ in range(200)]
        z = np.array([(one.value - exact) / one.se for one in found])
        assert 0.9 < z.std() < 1.15
        assert abs(z.mean()) < 0.15


def test_each_coalition_is_asked_for_once() -> None:
    asked: list[frozenset[int]] = []

    def value(coalition: frozenset[int]) -> np.ndarray:
        asked.append(coalition)
        return np.array([float(len(coalition))])

    sampled_shapley([(0, 1, 2), (0, 2, 1), (1, 0, 2)], value)
    assert len(asked) == len({*asked}) == 5
    assert frozenset() not in asked


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros(1), np.zeros(6)])
def test_values_of_every_coalition_are_needed(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="not those of every coalition"):
        shapley(bad)


@pytest.mark.parametrize("bad", [[], [(0, 0)], [(0, 1), (0, 2)], [(1, 2)]])
def test_orders_must_be_permutations(bad: list[tuple[int, ...]]) -> None:
    with pytest.raises(DataError, match="permutations"):
        sampled_banzhaf(bad, worth(GAME))
