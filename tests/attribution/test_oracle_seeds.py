"""Several seeds of an oracle: centring, ceiling, reliability, columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from guda_cli.attribution.oracle_seeds import (
    against_seeds,
    ceiling,
    centre,
    double_centre,
    mean_oracle,
    reliability,
    score_correlation,
    spearman_brown,
)
from guda_cli.attribution.rank_agreement import METRICS, metrics, random_expectation
from guda_cli.errors import DataError, MissingError


def noisy_copies(
    count: int, noise: float, shape: tuple[int, int] = (200, 8), seed: int = 0
) -> list[np.ndarray]:
    """One matrix of unit variance with independent noise of standard deviation `noise` a copy."""
    generator = np.random.Generator(np.random.PCG64(seed))
    truth = generator.normal(size=shape)
    return [truth + noise * generator.normal(size=shape) for _ in range(count)]


def test_centring_by_hand() -> None:
    scores = np.array([[1.0, 2.0, 6.0], [3.0, 0.0, 0.0]])
    np.testing.assert_allclose(centre(scores), [[-1, 1, 3], [1, -1, -3]])
    # row means 3 and 1, column means 2, 1, 3, grand mean 2
    np.testing.assert_allclose(double_centre(scores), [[-2, 0, 2], [2, 0, -2]])


def test_ceiling_of_two_seeds_by_hand() -> None:
    """Ranks a b c and b c a: a is third where b is first, b second where a is first."""
    seeds = [np.array([[3.0, 2.0, 1.0]]), np.array([[1.0, 3.0, 2.0]])]
    found = ceiling(seeds)
    assert list(found) == list(METRICS)
    assert found["top1"] == [0.0]
    assert found["mrr"] == pytest.approx([(1 / 2 + 1 / 3) / 2])
    assert found["spearman"] == pytest.approx([1 - 6 * (4 + 1 + 1) / (3 * 8)])
    # pairs ab (1), ac (2), bc (1) with bc kept; and ba (2), ca (1), bc (1) with bc kept
    assert found["wpra"] == pytest.approx([1 / 4])


def test_both_rows_average_single_comparisons() -> None:
    """Over the six ordered pairs of three seeds, and over the three seeds."""
    seeds = noisy_copies(3, 1.0, (20, 5))
    predicted = noisy_copies(1, 1.0, (20, 5))[0]
    found, mine = ceiling(seeds), against_seeds(predicted, seeds)
    for name in METRICS:
        pairs = [metrics(seeds[a], seeds[b])[name] for a in range(3) for b in range(3) if a != b]
        np.testing.assert_allclose(found[name], np.mean(pairs, axis=0))
        np.testing.assert_allclose(mine[name], np.mean([metrics(predicted, g)[name] for g in seeds], axis=0))


def test_a_seed_as_good_as_the_others_reaches_the_ceiling() -> None:
    """Single against single in both rows: a further copy is at the ceiling, within its error."""
    *seeds, further = noisy_copies(4, 1.0, (2000, 8))
    top, mine = ceiling(seeds), against_seeds(further, seeds)
    for name in METRICS:
        error = (top[name] - mine[name]).std(ddof=1) / np.sqrt(2000)
        assert abs((top[name] - mine[name]).mean()) < 5 * error, name


def test_ceiling_rises_as_noise_falls() -> None:
    means = [{k: v.mean() for k, v in ceiling(noisy_copies(3, s)).items()} for s in (4.0, 1.0, 0.3, 0.05)]
    for name in METRICS:
        values = [m[name] for m in means]
        assert values == sorted(set(values)), name
    floor = {k: v.mean() for k, v in random_expectation(noisy_copies(1, 1.0)[0]).items()}
    assert all(floor[name] < means[0][name] for name in METRICS)


def test_mean_oracle_by_hand() -> None:
    np.testing.assert_allclose(mean_oracle([np.array([[1.0, 2.0]]), np.array([[3.0, -2.0]])]), [[2.0, 0.0]])


def test_the_mean_oracle_is_nearer_to_the_truth() -> None:
    seeds = noisy_copies(4, 1.0)
    truth = noisy_copies(1, 0.0)[0]
    assert (
        metrics(mean_oracle(seeds), truth)["top1"].mean() > against_seeds(truth, seeds)["top1"].mean() + 0.1
    )


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_reliability_is_the_share_of_signal(noise: float) -> None:
    """var(truth) / (var(truth) + noise^2), whatever is added to whole rows or columns."""
    seeds = noisy_copies(3, noise, (2000, 10))
    generator = np.random.Generator(np.random.PCG64(1))
    shifted = [s + 9 * generator.normal(size=(2000, 1)) + 9 * generator.normal(size=(1, 10)) for s in seeds]
    assert reliability(seeds) == pytest.approx(1 / (1 + noise**2), abs=0.02)
    assert reliability(shifted) == pytest.approx(reliability(seeds), abs=1e-9)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_averaged_seeds_match_spearman_brown(count: int) -> None:
    """The mean of S simulated oracles against the mean of S others."""
    seeds = noisy_copies(2 * count, 1.5, (2000, 10))
    found = reliability([mean_oracle(seeds[:count]), mean_oracle(seeds[count:])])
    assert found == pytest.approx(spearman_brown(reliability(seeds), count), abs=0.02)


def test_spearman_brown_by_hand() -> None:
    assert spearman_brown(0.5, 1) == 0.5
    assert spearman_brown(0.5, 2) == pytest.approx(2 / 3)
    assert spearman_brown(0.48, 3) == pytest.approx(1.44 / 1.96)
    assert spearman_brown(1.0, 4) == 1.0
    assert spearman_brown(0.0, 4) == 0.0
    assert spearman_brown(-1.0, 2) == -1.0


def test_reliability_of_rounding_errors_is_nothing() -> None:
    """Effects of rows and columns only: what double centring leaves is rounding, not signal."""
    generator = np.random.Generator(np.random.PCG64(2))
    rows, columns = generator.normal(size=(50, 1)), generator.normal(size=(1, 7))
    assert reliability([rows + columns, rows + columns]) == 0.0
    assert reliability([rows + columns, noisy_copies(1, 1.0, (50, 7))[0]]) == 0.0


def test_score_correlation_against_numpy() -> None:
    predicted, oracle = noisy_copies(2, 1.0, (60, 4))
    expected = np.corrcoef(double_centre(predicted).ravel(), double_centre(oracle).ravel())[0, 1]
    assert score_correlation(predicted, oracle) == pytest.approx(expected, rel=1e-12)
    one = np.corrcoef(predicted[:, 0], oracle[:, 0])[0, 1]
    assert score_correlation(predicted[:, :1], oracle[:, :1]) == pytest.approx(one, rel=1e-12)


def test_what_all_groups_share_is_not_correlated() -> None:
    """A drift of all unlearned models, ten times the signal: it moves every rank of a query alike."""
    predicted, oracle = noisy_copies(2, 1.0, (500, 3))
    generator = np.random.Generator(np.random.PCG64(5))
    drift = 10 * generator.normal(size=(500, 1))
    quality = 10 * generator.normal(size=(1, 3))
    shifted = score_correlation(predicted + drift + quality, oracle - drift)
    assert shifted == pytest.approx(score_correlation(predicted, oracle), abs=1e-9)


def test_correlation_asks_for_the_columns_scales() -> None:
    """Two of three columns with their scales swapped: each correlates fully, together they do not."""
    signal = noisy_copies(1, 0.0, (4000, 3))[0]
    oracle, predicted = signal * [1.0, 10.0, 0.0], signal * [10.0, 1.0, 0.0]
    # Each less the row's mean a third of the sum: cov 2/3 (10 + 10) - 1/3 * 0, variances 2/3 (1 + 100)
    assert score_correlation(predicted, oracle) == pytest.approx(20 / 101, abs=0.02)


def test_constant_scores_correlate_with_nothing() -> None:
    """0.1 does not sum exactly; its rounding errors would correlate by chance."""
    oracle = noisy_copies(1, 1.0, (2049, 2))[0]
    assert score_correlation(np.full((2049, 2), 0.1), oracle) == 0.0
    assert score_correlation(oracle, np.full((2049, 2), 0.1)) == 0.0
    assert score_correlation(oracle[:1], oracle[:1]) == 0.0


@pytest.mark.parametrize("needs_two", [ceiling, reliability])
def test_one_seed_has_no_ceiling(needs_two: Callable[..., Any]) -> None:
    with pytest.raises(MissingError, match="at least 2 seeds; there are 1") as caught:
        needs_two([np.zeros((3, 2))])
    assert "--each-group" in caught.value.fix


@pytest.mark.parametrize("needs_one", [mean_oracle, lambda seeds: against_seeds(np.zeros((3, 2)), seeds)])
def test_no_seed_is_no_oracle(needs_one: Callable[..., Any]) -> None:
    with pytest.raises(MissingError):
        needs_one([])


@pytest.mark.parametrize("summary", [ceiling, reliability, mean_oracle])
def test_seeds_must_fit_each_other(summary: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        summary([np.zeros((3, 2)), np.zeros((2, 2))])
    with pytest.raises(DataError, match="oracle scores are not finite"):
        summary([np.zeros((3, 2)), np.full((3, 2), np.nan)])
