"""Areas under the curve and their errors, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.unlearning.membership import Auc, auc, hanley_mcneil


def test_an_area_counts_pairs() -> None:
    """Of six pairs 1 < 2, 1 < 3, 1 < 4, 3 < 4 are won, 3 = 3 is half, 3 > 2 is lost: 4.5 of 6."""
    assert auc(np.array([1.0, 3.0]), np.array([2.0, 3.0, 4.0])).value == pytest.approx(0.75)
    assert auc(np.array([2.0, 2.0]), np.array([2.0, 2.0])).value == 0.5
    assert auc(np.array([5.0, 6.0]), np.array([1.0, 2.0])).value == 0.0


def test_the_error_by_hand() -> None:
    """A = 0.8, n = 3, m = 4: Q1 = 0.8 / 1.2, Q2 = 1.28 / 1.8."""
    expected = ((0.16 + 2 * (0.8 / 1.2 - 0.64) + 3 * (1.28 / 1.8 - 0.64)) / 12) ** 0.5
    assert hanley_mcneil(0.8, 3, 4) == pytest.approx(expected)
    assert hanley_mcneil(0.5, 100, 100) == pytest.approx((0.25 + 2 * 99 * (1 / 3 - 0.25)) ** 0.5 / 100)


def test_the_error_is_that_of_random_samples() -> None:
    rng = np.random.default_rng(0)
    found = [auc(rng.exponential(size=40), rng.exponential(size=20)) for _ in range(400)]
    assert np.mean([one.value for one in found]) == pytest.approx(0.5, abs=0.015)
    assert np.std([one.value for one in found]) == pytest.approx(np.mean([one.se for one in found]), rel=0.1)
    assert np.std([one.value for one in found]) == pytest.approx(found[0].chance, rel=0.1)
    assert found[0].chance == pytest.approx((61 / (12 * 800)) ** 0.5)
    assert np.mean([one.beyond for one in found]) < 0.01


def test_complete_separation_still_has_an_error() -> None:
    found = auc(np.arange(20.0), np.arange(20.0) + 20)
    assert found.value == 1.0
    assert 0.0 < found.se < 0.1
    assert found.beyond


def test_what_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="1 and 3 values"):
        auc(np.array([1.0]), np.array([1.0, 2.0, 3.0]))
    assert not auc(np.array([1.0, np.nan]), np.array([1.0, 2.0])).beyond
    assert not Auc(0.66, 0.01, 0.05).beyond
    assert Auc(0.33, 0.01, 0.05).beyond
