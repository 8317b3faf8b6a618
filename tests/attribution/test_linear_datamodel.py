"""The linear datamodeling score over groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from guda_cli.attribution.linear_datamodel import datamodel_scores, predicted_sums
from guda_cli.errors import DataError

PAIRS = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0]], dtype=bool)


def test_by_hand() -> None:
    """Sums 3, 5, 6, 1 rank 2 3 4 1; measured 1 2 4 3: differences 1, 1, 0, 2, so 1 - 6 * 6 / (4 * 15)."""
    scores = np.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    np.testing.assert_array_equal(predicted_sums(scores, PAIRS), [[3, 5, 6, 1]] * 2)
    measured = np.array([[0.1, 0.2, 0.9, 0.3], [0.3, 0.5, 0.6, 0.1]])
    assert datamodel_scores(scores, PAIRS, measured) == pytest.approx([0.4, 1.0])


def test_against_scipy_and_by_sign() -> None:
    """Whatever is added to a query's scores counts by the number of groups; the sign turns the score."""
    rng = np.random.default_rng(0)
    removed = rng.permuted(np.tile([True, False], (16, 5)), axis=1)
    scores, measured = rng.normal(size=(20, 10)), rng.normal(size=(20, 16))
    found = datamodel_scores(scores, removed, measured)
    expected = [stats.spearmanr(s @ removed.T, m).statistic for s, m in zip(scores, measured, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(datamodel_scores(-scores, removed, measured), -found, atol=1e-12)
    np.testing.assert_allclose(datamodel_scores(scores + 8, removed, measured), found, atol=1e-12)


def test_an_additive_truth_is_foretold_and_noise_lowers_it() -> None:
    rng = np.random.default_rng(1)
    removed = rng.permuted(np.tile([True, False], (32, 5)), axis=1)
    truth = rng.normal(size=(100, 10))
    measured = predicted_sums(truth, removed)
    assert datamodel_scores(truth, removed, measured) == pytest.approx(np.ones(100))
    means = [datamodel_scores(truth + s * rng.normal(size=truth.shape), removed, measured).mean()
             for s in (0.3, 1.0, 3.0, 100.0)]  # fmt: skip
    assert means == sorted(means, reverse=True)
    assert abs(means[-1]) < 0.1


def test_constant_sums_foretell_nothing() -> None:
    halves = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], dtype=bool)
    assert datamodel_scores(np.ones((1, 4)), halves, np.array([[1.0, 2.0, 3.0]])) == [0.0]


def test_shapes_must_fit() -> None:
    with pytest.raises(DataError, match="cannot be summed"):
        predicted_sums(np.zeros((2, 4)), PAIRS)
    with pytest.raises(DataError, match="cannot be compared"):
        datamodel_scores(np.zeros((2, 3)), PAIRS, np.zeros((2, 3)))
    with pytest.raises(DataError, match="not finite"):
        datamodel_scores(np.zeros((1, 3)), PAIRS, np.array([[1.0, 2.0, 3.0, np.nan]]))
