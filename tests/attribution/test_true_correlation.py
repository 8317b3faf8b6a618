"""Correlation with the mean oracle and corrected for its reliability."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.attribution.bootstrap import shares_drawn
from guda_cli.attribution.oracle_seeds import reliability, score_correlation
from guda_cli.attribution.true_correlation import LEAST, OracleNoise, resampled_correlations
from guda_cli.errors import DataError

ONE, OTHER = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 0.0], [0.0, 2.0]])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).normal(size=shape)


def simulated(
    seeds: int, noise: float, mine: float, queries: int = 1500, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Truth, a method and oracle seeds: truth plus noise each, and what all groups or queries share."""
    truth, *noises = normal(seeds + 2, queries, 8, seed=seed)
    shared = 5 * normal(queries, 1, seed=seed + 1) + 5 * normal(1, 8, seed=seed + 2)
    return truth, truth + mine * noises[0] + shared, [truth + noise * n + shared for n in noises[1:]]


def test_by_hand() -> None:
    """Three queries, two groups. Differences of the groups, less their mean, are all that is left.

    Seeds (1, -1, 0) and (1, 0, -1): r = 1/2, of the mean 2/3. The mean is (2, -1, -1) / 2; the prediction
    (1, -1, 0) has 3/2 over sqrt(2 * 3/2) with it: sqrt(3) / 2. Over sqrt(2/3): 1.0606.
    """

    def table(*halves: float) -> np.ndarray:
        return np.array([[7.0 + h, 7.0 - h] for h in halves])

    noise = OracleNoise([table(1, -1, 0), table(1, 0, -1)])
    assert noise.single == pytest.approx(1 / 2)
    assert noise.of_mean == pytest.approx(2 / 3)
    found = noise.correlation(table(1, -1, 0))
    assert found.plain[0] == pytest.approx(np.sqrt(3) / 2)
    assert found.true is not None
    assert found.true[0] == pytest.approx(np.sqrt(3) / 2 / np.sqrt(2 / 3))
    assert found.true[0] > 1, "not cut"
    another = noise.of_another_seed()
    assert another is not None
    assert another.true is not None
    assert another.plain[0] == pytest.approx(np.sqrt(1 / 3))
    assert another.true[0] == pytest.approx(np.sqrt(1 / 2))


@pytest.mark.parametrize("seeds", [2, 4])
@pytest.mark.parametrize("noise", [0.5, 2.0])
@pytest.mark.parametrize("mine", [0.0, 1.0])
def test_the_correlation_with_the_truth_is_recovered(seeds: int, noise: float, mine: float) -> None:
    truth, method, oracles = simulated(seeds, noise, mine)
    found = OracleNoise(oracles).correlation(method)
    assert found.true is not None
    expected = 1 / np.sqrt(1 + mine**2)
    assert score_correlation(method, truth) == pytest.approx(expected, abs=0.02)
    assert found.true[0] == pytest.approx(expected, abs=0.03)
    assert found.plain[0] == pytest.approx(expected / np.sqrt(1 + noise**2 / seeds), abs=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Correlation with the truth 0.71, oracles of reliability 1/2; also shows that there is no bias."""
    inside, values = [], []
    for seed in range(0, 360, 3):
        _, method, oracles = simulated(2, 1.0, 1.0, queries=80, seed=1000 + seed)
        found = OracleNoise(oracles, resamples=300).correlation(method)
        assert found.true is not None
        value, low, high = found.true
        assert low < value < high
        inside.append(low <= np.sqrt(0.5) <= high)
        values.append(value)
    assert 0.9 <= np.mean(inside) <= 0.99
    assert np.mean(values) == pytest.approx(np.sqrt(0.5), abs=0.01)


def test_one_more_seed_has_what_the_ceiling_says() -> None:
    _, _, seeds = simulated(4, 1.5, 0.0, queries=3000)
    *oracles, further = seeds
    noise = OracleNoise(oracles)
    found, expected = noise.correlation(further), noise.of_another_seed()
    assert expected is not None
    assert found.plain[0] == pytest.approx(expected.plain[0], abs=0.02)
    assert found.true is not None
    assert expected.true is not None
    assert found.true[0] == pytest.approx(expected.true[0], abs=0.02)


def test_resamples_are_those_of_rows_drawn_again() -> None:
    """Against the correlation of the rows themselves; a resample of one query alone has none."""
    one, other = normal(12, 5), normal(12, 5, seed=1) + 1e6
    drawn = shares_drawn(12, 3, 50)
    rows = [np.repeat(np.arange(12), np.rint(12 * shares).astype(int)) for shares in drawn]
    expected = [score_correlation(one[at], other[at]) for at in rows]
    np.testing.assert_allclose(resampled_correlations(one, other, drawn), expected, atol=1e-7)
    alone = resampled_correlations(one, other, np.eye(12))
    np.testing.assert_array_equal(alone, np.zeros(12))
    single = resampled_correlations(one[:, :1], other[:, :1], np.full((1, 12), 1 / 12))
    assert single == pytest.approx([score_correlation(one[:, :1], other[:, :1])], abs=1e-6)


def test_all_methods_see_the_same_resamples() -> None:
    _, method, oracles = simulated(2, 1.0, 1.0, queries=40)
    noise = OracleNoise(oracles)
    same = OracleNoise(oracles).correlation(3 * method + 1)
    assert same.plain == pytest.approx(noise.correlation(method).plain, rel=1e-9)
    assert same.true == pytest.approx(noise.correlation(method).true, rel=1e-9)
    assert noise.correlation(method) != OracleNoise(oracles, seed=1).correlation(method)


def test_what_cannot_be_corrected() -> None:
    method = normal(50, 4)
    one = OracleNoise([normal(50, 4, seed=1)])
    assert (one.single, one.of_mean, one.of_another_seed()) == (None, None, None)
    assert one.correlation(method).true is None
    unrelated = OracleNoise([normal(500, 4, seed=1), normal(500, 4, seed=2)])
    assert unrelated.of_mean is not None
    assert unrelated.of_mean < LEAST
    assert unrelated.correlation(normal(500, 4)).true is None
    assert unrelated.of_another_seed() is None
    assert unrelated.single == reliability(unrelated.oracles)


def test_shapes_must_fit() -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        OracleNoise([ONE, OTHER]).correlation(np.zeros((3, 2)))


def test_constant_scores_correlate_with_nothing() -> None:
    found = OracleNoise([ONE, ONE]).correlation(np.full((2, 2), 0.1))
    assert found.plain == (0.0, 0.0, 0.0)
