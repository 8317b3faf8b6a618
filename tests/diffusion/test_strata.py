"""Strata that follow the sizes of the terms: where they lie, that they stay unbiased, what they are worth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guda_cli.attribution.delta_elbo import estimate
from guda_cli.diffusion import grid, strata
from guda_cli.diffusion.schedule import Array, Schedule, flow_matching, from_config


def cosine(T: int = 1000) -> Schedule:
    return from_config({"num_train_timesteps": T, "beta_schedule": "squaredcos_cap_v2"})


def linear(T: int = 1000) -> Schedule:
    return from_config({"num_train_timesteps": T, "beta_schedule": "linear"})


def spec_of(
    schedule: Schedule, sizes: list[tuple[float, Array]], n: int, draws: int, seed: int
) -> dict[str, object]:
    return grid.spec("strata", n, draws, seed, strata.edges(schedule, sizes, n))


@given(
    T=st.integers(5, 400),
    n=st.integers(1, 500),
    percent=st.integers(0, 100),
    seed=st.integers(0, 99),
    draws=st.integers(1, 3),
)
def test_whatever_the_sizes_every_timestep_counts_once(
    T: int, n: int, percent: int, seed: int, draws: int
) -> None:
    schedule, rng = cosine(T), np.random.default_rng(seed)
    size = np.concatenate([[0.0], rng.exponential(size=T) ** 4])
    found = grid.build(spec_of(schedule, [(percent / 100, size)], n, draws, seed), T)
    assert found.timesteps.shape == found.numbers.shape == (draws, min(n, T))
    assert found.widths.sum() == pytest.approx(T)
    assert found.timesteps.min() >= 1
    assert found.timesteps.max() <= T
    cells = {(int(t), int(d)) for t, d in zip(found.timesteps.ravel(), found.numbers.ravel(), strict=True)}
    assert len(cells) == found.rows  # no noise is used twice


def test_the_ends_and_clipped_betas_stand_alone() -> None:
    """On the cosine schedule the last beta is cut off; it is drawn from four times of 25."""
    assert strata.single(cosine()) == [1, 1000]
    edges, repeats = strata.edges(cosine(), [], 25)
    assert edges[:2] == [0, 1]
    assert edges[-2:] == [999, 1000]
    assert repeats == [1] * 21 + [4]
    assert strata.single(linear()) == [1, 1000]
    assert strata.edges(linear(), [], 25)[1] == [1] * 25  # nothing is cut off there
    betas = np.array([0.1, 0.2, 0.9995, 0.5, 1.0])
    assert strata.single(Schedule.from_betas(betas)) == [1, 3, 5]
    assert strata.single(flow_matching(10)) == [1, 10]


def test_few_strata_have_none_to_spare_for_the_ends() -> None:
    assert strata.edges(cosine(), [], 5) == ([0, 200, 400, 600, 800, 1000], [1] * 5)
    assert strata.edges(cosine(), [], 1) == ([0, 1000], [1])
    assert strata.edges(linear(20), [], 30) == (list(range(21)), [1] * 20)


def test_strata_have_equal_parts_of_the_size() -> None:
    """Sizes 1 at t <= 100 and 9 above, of 200: nine tenths of the strata lie above."""
    size = np.concatenate([[0.0], np.full(100, 1.0), np.full(100, 9.0)])
    edges, _ = strata.edges(linear(200), [(1.0, size)], 22)
    assert sum(edge <= 100 for edge in edges[1:-1]) == pytest.approx(2 + 1, abs=1)  # t = 1 and its tenth


def test_estimates_stay_unbiased_and_the_variance_falls_by_the_sizes() -> None:
    """Over many seeds the mean is the whole sum, and the error far below that of even strata."""
    schedule = cosine()
    truth = schedule.elbo_weight * (1.0 + np.sin(np.arange(1001)))
    sizes = [(0.7, schedule.elbo_weight)]
    errors = {}
    for name in ("sized", "even"):
        sums = []
        for seed in range(1500):
            spec = (
                spec_of(schedule, sizes, 25, 1, seed) if name == "sized" else grid.spec("strata", 25, 1, seed)
            )
            found = grid.build(spec, 1000)
            sums.append(float((truth[found.timesteps[0]] * found.widths).sum()))
        errors[name] = float(np.std(sums))
        assert abs(np.mean(sums) - truth[1:].sum()) < 4 * errors[name] / np.sqrt(len(sums))
    assert errors["sized"] < errors["even"] / 100  # t = T alone is worth that


def test_more_draws_begin_with_fewer() -> None:
    """So that what is stored of two draws serves four."""
    two, four = (grid.build(spec_of(cosine(), [], 25, draws, 3), 1000) for draws in (2, 4))
    assert np.array_equal(four.timesteps[:2], two.timesteps)
    assert np.array_equal(four.numbers[:2], two.numbers)


@pytest.mark.parametrize(
    ("draws", "sizes"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2]), (7, [2, 2, 3]), (8, [2, 2, 4])]
)
def test_layers_make_up_the_whole(draws: int, sizes: list[int]) -> None:
    spec = spec_of(cosine(), [], 25, draws, 0)
    parts = [grid.build(part, 1000) for part in grid.layers(spec)]
    assert [part.draws for part in parts] == sizes
    whole = grid.build(spec, 1000)
    assert np.array_equal(np.concatenate([part.timesteps for part in parts]), whole.timesteps)
    assert np.array_equal(np.concatenate([part.numbers for part in parts]), whole.numbers)
    assert grid.layers(grid.spec("strata:even", 25, draws, 0)) == [grid.spec("strata:even", 25, draws, 0)]


def test_sizes_are_read_between_the_probes() -> None:
    """A power of t is a line in log-log: exact between probes."""
    schedule = linear()
    at = strata.probes(schedule)
    assert {1, 1000} <= set(at.tolist())
    assert len(at) <= strata.PROBES + 2
    t = np.arange(1, 1001)
    np.testing.assert_allclose(strata.between(schedule, at, 7.0 * at**-0.5)[1:], 7.0 * t**-0.5, rtol=1e-9)
    assert strata.probes(linear(20)).tolist() == list(range(1, 21))


@pytest.mark.parametrize("draws", [1, 2, 4])
def test_intervals_cover_the_whole_sum(draws: int) -> None:
    """95 % intervals over 600 seeds of 40 sums of noisy terms of very unequal size: 93 to 97 % hold it."""
    schedule, rng = linear(), np.random.default_rng(5)
    size = np.concatenate([[0.0], np.arange(1, 1001) ** -0.7])
    inside = []
    for seed in range(600):
        found = grid.build(spec_of(schedule, [(0.6, size)], 25, draws, seed), 1000)
        noise = rng.normal(size=(40, *found.timesteps.shape))
        terms = size[found.timesteps] * (0.3 + noise)
        made = estimate(terms, found, np.ones(1001))
        inside.append(np.abs(made.value - 0.3 * size.sum()) <= made.reach)
    assert 0.93 <= np.mean(inside) <= 0.97


def test_strata_for_one_weighting_follow_its_sizes() -> None:
    schedule = from_config({"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"})
    size = np.where(np.arange(101) <= 20, 4.0, 0.25)
    size[[0, 60]] = 0.0, 40.0
    edges, repeats = strata.by_size(schedule, size, 30)
    assert sum(repeats) == 30
    assert edges[0] == 0
    assert edges[-1] == 100
    lone = edges.index(60) - 1
    assert edges[lone] == 59
    # a share of 0.8 goes by size: 40 of 139.75 at t = 60, and 0.2 evenly
    assert repeats[lone] == round(30 * (0.8 * 40 / 139.75 + 0.2 / 100))
    below = sum(r for e, r in zip(edges[1:], repeats, strict=True) if e <= 20)
    assert below == pytest.approx(30 * (0.8 * 80 / 139.75 + 0.2 * 20 / 100), abs=1.1)
    assert strata.by_size(schedule, size, 100) == (list(range(101)), [1] * 100)
