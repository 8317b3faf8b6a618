"""Scores, their Monte-Carlo errors, and intervals, on arrays small enough to do by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from guda_cli.attribution.delta_elbo import delta_elbo, estimate
from guda_cli.diffusion import grid
from guda_cli.diffusion.grid import Grid
from guda_cli.intervals import Z95

ONES = np.ones(101)


def fixed_grid(timesteps: list[list[int]], widths: list[float]) -> Grid:
    numbers = np.repeat(np.arange(len(timesteps))[:, None], len(timesteps[0]), axis=1)
    return Grid(np.array(timesteps), np.array(widths), True, {}, numbers)


def test_two_draws_by_hand() -> None:
    """widths (2, 1), v_t = t / 10: factors (0.2, 0.3) in the first draw, (0.4, 0.3) in the second."""
    g = fixed_grid([[1, 3], [2, 3]], [2.0, 1.0])
    v = np.arange(5) / 10
    terms = np.array([[[10.0, 10.0], [20.0, 30.0]], [[5.0, 0.0], [2.5, 0.0]]])
    found = estimate(terms, g, v)
    # query 0: weighted (2, 3) and (8, 9): stratum means 5 and 6, variances 18 and 18, error^2 = 18/2 + 18/2
    # query 1: weighted (1, 0) and (1, 0)
    np.testing.assert_allclose(found.value, [11.0, 1.0])
    np.testing.assert_allclose(found.se, [math.sqrt(18.0), 0.0], atol=1e-15)


def test_one_draw_by_hand() -> None:
    """Neighbouring strata stand in for draws: (1 - 4)^2 + (2 - 0)^2 = 13."""
    g = fixed_grid([[1, 2, 3, 4]], [1.0, 1.0, 2.0, 2.0])
    found = estimate(np.array([[[1.0, 4.0, 1.0, 0.0]]]), g, ONES)
    assert found.value.tolist() == [7.0]
    assert found.se.tolist() == [math.sqrt(13.0)]
    # parts 9 and 4 of one degree each: 13^2 / ((81 + 16) / 3) - 2 = 3.23, of two there are
    assert found.df.tolist() == [2.0]


def test_degrees_of_freedom_by_hand() -> None:
    """Parts 9, 4 and 1 of the variance, of one degree each: 14^2 / (98 / 3) - 2 = 4; there are 3."""
    g = fixed_grid([[1, 2, 3], [1, 2, 3]], [1.0, 1.0, 1.0])
    found = estimate(np.array([[[0.0, 0.0, 0.0], [6.0, 4.0, 2.0]]]), g, ONES)
    assert found.se.tolist() == [math.sqrt(14.0)]
    assert found.df.tolist() == [3.0]
    # one part outweighs the others, 100^2 / (100^2 / 3) - 2 = 1
    lone = estimate(np.array([[[0.0, 0.0, 0.0], [math.sqrt(200.0) * math.sqrt(2.0), 0.0, 0.0]]]), g, ONES)
    assert lone.df[0] == pytest.approx(1.0)
    assert lone.reach[0] == pytest.approx(stats.t.ppf(0.975, 1) * lone.se[0])


def test_strata_drawn_from_repeatedly_pair_with_one_another() -> None:
    """One draw of t = 1, 2, 3 and three times 9: pairs are (1, 2, 3) and the three of 9."""
    g = fixed_grid([[1, 2, 3, 9, 9, 9]], [1.0] * 6)
    found = estimate(np.array([[[1.0, 1.0, 1.0, 50.0, 52.0, 54.0]]]), g, ONES)
    assert found.se[0] == pytest.approx(math.sqrt(3 * 4.0))  # not the 49 between 1 and 50
    single = fixed_grid([[1, 9, 9, 9]], [1.0] * 4)
    assert estimate(np.array([[[1.0, 50.0, 52.0, 54.0]]]), single, ONES).se[0] == pytest.approx(math.sqrt(12))


def test_one_draw_of_one_timestep_claims_no_certainty() -> None:
    """Nothing tells the error of a single number; 0 would say that it is exact."""
    found = estimate(np.array([[[4.0]]]), fixed_grid([[3]], [10.0]), ONES)
    assert found.value.tolist() == [40.0]
    assert found.se[0] != 0.0


def test_95_percent_of_a_normal_error() -> None:
    assert stats.norm.ppf(0.975) == pytest.approx(Z95, rel=1e-12)


def test_positive_means_worse_without_the_group() -> None:
    """Terms are of -ELBO: a model that explains the image worse has larger ones."""
    g = fixed_grid([[1, 2]] * 2, [1.0, 1.0])
    full = np.full((1, 2, 2), 3.0)
    worse = full + np.array([[[0.5, 1.0], [0.5, 1.0]]])
    assert delta_elbo(full, worse, g, ONES).value.tolist() == [1.5]
    assert delta_elbo(worse, full, g, ONES).value.tolist() == [-1.5]


def test_the_error_is_that_of_the_paired_difference() -> None:
    """Noise that both models share cancels."""
    rng = np.random.default_rng(0)
    g = fixed_grid([list(range(1, 9))] * 3, [1.0] * 8)
    full = 100 * rng.random((5, 3, 8))
    found = delta_elbo(full, full + 0.25, g, ONES)
    np.testing.assert_allclose(found.value, 2.0, rtol=1e-10)
    assert (found.se < 1e-10).all()
    assert (estimate(full, g, ONES).se > 10).all()


def test_scores_do_not_depend_on_the_order_or_number_of_queries() -> None:
    rng = np.random.default_rng(1)
    g = grid.build(grid.spec("strata", 6, 2, 0), 100)
    full, without = rng.random((2, 7, 2, 6))
    order = rng.permutation(7)
    whole = delta_elbo(full, without, g, ONES)
    mixed = delta_elbo(full[order], without[order], g, ONES)
    np.testing.assert_array_equal(mixed.value, whole.value[order])
    np.testing.assert_array_equal(mixed.se, whole.se[order])
    alone = delta_elbo(full[3:4], without[3:4], g, ONES)
    np.testing.assert_allclose(alone.value, whole.value[3:4], rtol=1e-13)
    np.testing.assert_allclose(alone.se, whole.se[3:4], rtol=1e-12)


def covered(draws: int, rounds: int = 1500) -> float:
    """How often the 95 % interval holds the whole sum: timesteps and noise are drawn anew each round."""
    T, n = 100, 20
    curve = np.concatenate([[0.0], 3 * np.exp(-np.arange(1, T + 1) / 30.0)])
    rng = np.random.default_rng(draws)
    hits = 0
    for seed in range(rounds):
        g = grid.build(grid.spec("strata", n, draws, seed), T)
        terms = curve[g.timesteps] + 0.4 * rng.standard_normal((draws, n))
        found = estimate(terms[None], g, ONES)
        hits += bool(abs(found.value[0] - curve.sum()) <= found.reach[0])
    return hits / rounds


@pytest.mark.parametrize("draws", [1, 2, 4])
def test_interval_covers_the_truth_95_times_in_100(draws: int) -> None:
    assert 0.93 < covered(draws) < 0.975
