"""The interval for what retraining would say: recovered lines, and its coverage on groups it never saw."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.attribution.retraining import Retraining, fit


def test_by_hand() -> None:
    """Shift 10, slope 2, deviation sqrt(9 + (0.5 x 8)^2) = 5, two of them: 26 give or take 10."""
    known = Retraining(10.0, 2.0, 3.0, 0.5, 2.0, 3, 20, 2)
    middle, low, high = known.interval(np.array([8.0, 0.0]))
    np.testing.assert_allclose(middle, [26.0, 10.0])
    np.testing.assert_allclose(low, [16.0, 4.0])
    np.testing.assert_allclose(high, [36.0, 16.0])


def simulated(rng: np.random.Generator, images: int, groups: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scores, and three retrainings of slope 1.5 with a deviation of 5 + what grows with the score."""
    scores = rng.exponential(20.0, (images, groups)) - 10.0
    noise = [rng.normal(size=scores.shape) * np.hypot(5.0, 0.3 * scores) for _ in range(3)]
    return scores, [4.0 + 1.5 * scores + one for one in noise]


def test_the_line_and_the_deviation_are_found() -> None:
    scores, oracles = simulated(np.random.default_rng(0), 400, 5)
    found = fit(scores, oracles)
    assert found is not None
    assert found.shift == pytest.approx(4.0, abs=0.5)
    assert found.slope == pytest.approx(1.5, abs=0.05)
    assert found.floor == pytest.approx(5.0, rel=0.15)
    assert found.rise == pytest.approx(0.3, rel=0.25)
    assert found.reach == pytest.approx(1.96, abs=0.15)


def test_it_covers_another_seed_of_other_groups() -> None:
    """Fitted on one seed of three groups, it is asked of another seed of seven others."""
    inside = []
    for seed in range(30):
        scores, oracles = simulated(np.random.default_rng(seed), 60, 10)
        known = fit(scores[:, :3], [oracles[0][:, :3]])
        assert known is not None
        _, low, high = known.interval(scores[:, 3:])
        inside.append(((low <= oracles[1][:, 3:]) & (oracles[1][:, 3:] <= high)).mean())
    assert 0.92 < np.mean(inside) < 0.98


def test_too_little_is_known() -> None:
    scores, oracles = simulated(np.random.default_rng(1), 60, 3)
    assert fit(scores[:, :1], [one[:, :1] for one in oracles]) is None
    assert fit(scores[:10], [one[:10] for one in oracles]) is None
    assert fit(scores, []) is None


def test_exact_agreement_leaves_a_narrow_interval() -> None:
    scores = np.random.default_rng(2).normal(size=(30, 3))
    found = fit(scores, [2.0 * scores])
    assert found is not None
    _, low, high = found.interval(scores)
    assert (high - low).max() < 1e-6
