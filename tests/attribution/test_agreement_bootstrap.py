"""The bootstrap over queries: its size, its coverage, and that methods share their resamples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from guda_cli.attribution.bootstrap import bootstrap_interval
from guda_cli.errors import DataError


def values(count: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).normal(size=count)


def test_width_is_that_of_theory() -> None:
    """1.96 standard errors to each side, within the bootstrap's own noise."""
    sample = values(400)
    mean, low, high = bootstrap_interval(sample, seed=1, resamples=20_000)
    half = stats.norm.ppf(0.975) * sample.std() / 20
    assert mean == sample.mean()
    assert low == pytest.approx(mean - half, abs=0.05 * half)
    assert high == pytest.approx(mean + half, abs=0.05 * half)


def test_against_scipy() -> None:
    sample = values(100) ** 2
    reference = stats.bootstrap(
        (sample,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0)
    )
    _, low, high = bootstrap_interval(sample, seed=0, resamples=20_000)
    expected = reference.confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03 * (high - low))


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    """400 samples of 60 queries of a mean of 0: 0.95, less a little as the bootstrap is narrow for few."""
    found = [bootstrap_interval(values(60, seed), seed=0) for seed in range(400)]
    assert 0.91 <= np.mean([low <= 0 <= high for _, low, high in found]) <= 0.98


def test_resamples_depend_on_the_seed_alone() -> None:
    """The same draws for every method: shifting and scaling values shifts and scales the interval."""
    sample = values(50)
    base = np.array(bootstrap_interval(sample, seed=7))
    np.testing.assert_allclose(bootstrap_interval(3 + 2 * sample, seed=7), 3 + 2 * base, rtol=1e-12)
    assert bootstrap_interval(sample, seed=7) == tuple(base)
    assert bootstrap_interval(sample, seed=8) != tuple(base)


def test_level_widens() -> None:
    sample = values(50)
    _, low, high = bootstrap_interval(sample, seed=0, level=0.5)
    _, lower, higher = bootstrap_interval(sample, seed=0, level=0.99)
    assert lower < low < high < higher


def test_one_query_or_equal_values_leave_no_width() -> None:
    assert bootstrap_interval(np.array([0.5]), seed=0) == (0.5, 0.5, 0.5)
    assert bootstrap_interval(np.full(8, 0.25), seed=0) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 2)), np.array([0.0, np.nan]), np.array([np.inf])])
def test_bad_values(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="no interval"):
        bootstrap_interval(bad, seed=0)
