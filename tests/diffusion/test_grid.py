"""Grids cover 1..T as they say, and the stratified one estimates whole sums without bias."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guda_cli.diffusion import grid
from guda_cli.errors import UsageError


@given(T=st.integers(2, 1200), n=st.integers(1, 300), draws=st.integers(1, 3), seed=st.integers(0, 99))
def test_strata_cover_every_timestep_once(T: int, n: int, draws: int, seed: int) -> None:
    found = grid.build(grid.spec("strata", n, draws, seed), T)
    assert found.unbiased
    assert found.timesteps.shape == (draws, min(n, T))
    assert found.widths.sum() == T
    assert found.widths.min() >= 1
    assert found.widths.max() - found.widths.min() <= 1
    ends = np.cumsum(found.widths)
    for row in found.timesteps:
        assert (row > ends - found.widths).all()
        assert (row <= ends).all()
    assert found.rows == draws * min(n, T)


def test_strata_estimate_a_known_sum_without_bias() -> None:
    """The mean over many seeds of sum(width * f(t)) against sum(f), within four standard errors."""
    T, n = 103, 8
    f = np.exp(-np.arange(T + 1) / 9.0) + 0.1 * np.sin(np.arange(T + 1))
    grids = [grid.build(grid.spec("strata", n, 1, seed), T) for seed in range(3000)]
    sums = np.array([(f[g.timesteps[0]] * g.widths).sum() for g in grids])
    error = sums.std(ddof=1) / np.sqrt(len(sums))
    assert sums.std() > 0.01
    assert abs(sums.mean() - f[1:].sum()) < 4 * error


def test_every_timestep_of_a_stratum_is_as_likely() -> None:
    drawn = np.concatenate([grid.build(grid.spec("strata", 2, 5, s), 8).timesteps for s in range(800)])
    counts = np.bincount(drawn.ravel(), minlength=9)
    assert counts[0] == 0
    expected = len(drawn) / 4
    assert abs(counts[1:] - expected).max() < 4.5 * np.sqrt(expected * 0.75)


def test_draws_and_seeds_take_their_own_timesteps() -> None:
    one = grid.build(grid.spec("strata", 20, 2, 0), 1000)
    assert not np.array_equal(one.timesteps[0], one.timesteps[1])
    assert np.array_equal(one.timesteps, grid.build(grid.spec("strata", 20, 2, 0), 1000).timesteps)
    assert not np.array_equal(one.timesteps, grid.build(grid.spec("strata", 20, 2, 1), 1000).timesteps)


@pytest.mark.parametrize(("stride", "T"), [(10, 1000), (10, 995), (7, 50), (1, 12)])
def test_stride_is_every_nth_index_from_the_nth(stride: int, T: int) -> None:
    found = grid.build(grid.spec(f"stride:{stride}", 50, 2, 0), T)
    indices = [i for i in range(T) if i >= stride and i % stride == 0]  # diffusers counts from 0
    assert (found.timesteps - 1).tolist() == [indices, indices]
    assert found.widths.tolist() == [1.0] * len(indices)
    assert not found.unbiased


def test_stride_of_the_public_code() -> None:
    steps = grid.build(grid.spec("grid:stride:10", 50, 1, 0), 1000).timesteps[0]
    assert (steps[0], steps[-1], len(steps)) == (11, 991, 99)


def test_all_is_every_term() -> None:
    found = grid.build(grid.spec("all", 3, 2, 0), 6)
    assert found.timesteps.tolist() == [[1, 2, 3, 4, 5, 6]] * 2
    assert found.widths.tolist() == [1.0] * 6
    assert found.unbiased


def test_spec_holds_only_what_decides_the_grid() -> None:
    assert grid.spec("strata", 5, 2, 9) == {"kind": "strata", "timesteps": 5, "draws": 2, "seed": 9}
    assert grid.spec("all", 5, 2, 9) == grid.spec("all", 6, 2, 9)
    assert grid.spec("stride:4", 5, 2, 9) == grid.spec("grid:stride:4", 6, 2, 9)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "strat",
        "strata:3",
        "all:2",
        "stride",
        "stride:",
        "stride:0",
        "stride:-3",
        "stride:1.5",
        "stride:²",
    ],
)
def test_unknown_grids_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown grid"):
        grid.spec(name, 5, 1, 0)


def test_stride_without_a_timestep_is_refused() -> None:
    with pytest.raises(UsageError, match="no timestep"):
        grid.build(grid.spec("stride:50", 5, 1, 0), 50)


LAYOUT = ([0, 1, 5, 20, 40, 90, 100], [2, 1, 1, 1, 1, 1])
"""Edges of six strata, the first of which is drawn from twice."""


def test_mirrored_draws_estimate_a_known_sum_without_bias() -> None:
    T = 100
    f = np.exp(-np.arange(T + 1) / 9.0) + 0.1 * np.sin(np.arange(T + 1))
    for n in (1, 2, 5):
        found = grid.build(grid.mirrored_spec(LAYOUT, n, 4000, 7), T)
        assert found.timesteps.shape == found.widths.shape == (4000, 2 * n)
        sums = found.weighted(f[found.timesteps], np.ones(T + 1)).sum(axis=1)
        error = sums.std(ddof=1) / np.sqrt(len(sums))
        assert error > 0.001
        assert abs(sums.mean() - f[1:].sum()) < 4 * error


def test_timesteps_are_drawn_as_often_as_their_stratum_is_narrow() -> None:
    found = grid.build(grid.mirrored_spec(LAYOUT, 1, 7000, 0), 100)
    counts = np.bincount(found.timesteps[:, 0], minlength=101)
    assert counts[0] == 0
    for low, high, share in (
        (0, 1, 2000),
        (1, 5, 250),
        (5, 20, 1000 / 15),
        (40, 90, 20),
    ):  # of 7
        assert abs(counts[low + 1 : high + 1].mean() - share) < 5 * np.sqrt(share / (high - low))
    assert set(found.widths[found.timesteps == 1]) == {7 / 4}  # 7 shares, 2 of them, a noise and its mirror
    assert set(found.widths[found.timesteps == 2]) == {4 * 7 / 2}


def test_a_noise_and_its_mirror_are_one_draw() -> None:
    found = grid.build(grid.mirrored_spec(LAYOUT, 2, 3, 1), 100)
    assert found.mirrored
    assert np.array_equal(found.timesteps[:, ::2], found.timesteps[:, 1::2])
    assert found.numbers.tolist() == [[0, -1, 1, -2], [2, -3, 3, -4], [4, -5, 5, -6]]
    odd = np.array([[1.0, -1.0, 2.0, -2.0]] * 3)
    assert np.array_equal(found.weighted(odd, np.ones(101)), np.zeros((3, 2)))
    more = grid.build(grid.with_draws(found.spec, 2, first=1), 100)
    for part in ("timesteps", "widths", "numbers"):
        assert np.array_equal(getattr(more, part), getattr(found, part)[1:])
