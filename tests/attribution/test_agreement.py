"""Every metric on examples done by hand, and against scikit-learn and scipy."""

from __future__ import annotations

from itertools import permutations
from math import log2, sqrt

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score

from guda_cli.attribution import rank_agreement
from guda_cli.attribution.rank_agreement import METRICS, metrics, random_expectation, rbo_max
from guda_cli.errors import DataError
from guda_cli.report.agreement import columns


def rows(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).normal(size=shape)


def check(predicted: list[float], oracle: list[float], expected: dict[str, float]) -> None:
    found = metrics(np.array([predicted]), np.array([oracle]))
    assert list(found) == list(METRICS)
    for name, value in expected.items():
        assert found[name] == pytest.approx([value], abs=1e-12), name


def test_names_are_those_of_the_report() -> None:
    known = [column.name for column in columns.metrics(columns.View.JSON)]
    assert tuple(name for name in known if name not in columns.OF_THE_BENCH) == METRICS


def test_four_groups_by_hand() -> None:
    """Groups a, b, c, d: the oracle ranks a c d b, the prediction b a c d."""
    check(
        [0.5, 0.6, 0.4, 0.1],
        [0.4, 0.1, 0.3, 0.2],
        {
            "top1": 0.0,
            "mrr": 1 / 2,
            # gains a 7, c 3, d 1, b 0
            "ndcg@3": (0 + 7 / log2(3) + 3 / 2) / (7 + 3 / log2(3) + 1 / 2),
            "ndcg@5": (0 + 7 / log2(3) + 3 / 2 + 1 / log2(5)) / (7 + 3 / log2(3) + 1 / 2),
            # gains a 4, c 3, d 2, b 1
            "ndcg@3:linear": (1 + 4 / log2(3) + 3 / 2) / (4 + 3 / log2(3) + 2 / 2),
            "ndcg@5:linear": (1 + 4 / log2(3) + 3 / 2 + 2 / log2(5))
            / (4 + 3 / log2(3) + 2 / 2 + 1 / log2(5)),
            # ranks 1 4 2 3 and 2 1 3 4: squared differences 1 + 9 + 1 + 1
            "spearman": 1 - 6 * 12 / (4 * 15),
            # in order: ac, ad, cd; against it: ab, bc, bd
            "kendall": 0.0,
            # overlaps 0/1, 1/2, 2/3, 4/4
            "rbo": 0.1 * (0 + 0.9 * 1 / 2 + 0.81 * 2 / 3 + 0.729),
            # ab 0.3, ac 0.1, ad 0.2, bc 0.2, bd 0.1, cd 0.1
            "wpra": (0.1 + 0.2 + 0.1) / 1.0,
        },
    )


def test_a_tied_prediction_by_hand() -> None:
    """The first two of three groups tie: half the time in the oracle's order."""
    check(
        [1.0, 1.0, 0.0],
        [3.0, 2.0, 1.0],
        {
            "top1": 1 / 2,
            "mrr": (1 + 1 / 2) / 2,
            "ndcg@3": 2 * (1 + 1 / log2(3)) / (3 + 1 / log2(3)),
            "ndcg@3:linear": (2.5 * (1 + 1 / log2(3)) + 1 / 2) / (3 + 2 / log2(3) + 1 / 2),
            # midranks 1.5 1.5 3 against 1 2 3
            "spearman": 1.5 / sqrt(1.5 * 2),
            "kendall": 2 / sqrt(2 * 3),
            "rbo": 0.1 * (1 / 2 + 0.9 + 0.81),
            # weights 1, 2, 1, the first pair tied
            "wpra": (0.5 + 2 + 1) / 4,
        },
    )


def test_a_tied_oracle_by_hand() -> None:
    """The oracle's first two tie: each is its top group half the time."""
    check(
        [3.0, 2.0, 1.0],
        [1.0, 1.0, 0.0],
        {"top1": 1 / 2, "mrr": 3 / 4, "kendall": 2 / sqrt(6), "rbo": 0.221, "wpra": 1.0},
    )


def test_wpra_leaves_out_pairs_below_the_top_three() -> None:
    oracle = [5.0, 4.0, 3.0, 2.0, 0.0]
    check([5.0, 4.0, 3.0, 0.0, 2.0], oracle, {"wpra": 1.0, "kendall": 0.8})
    # The third (3.0) below the fourth (2.0): 1 of 1+2+3+5 + 1+2+4 + 1+3 is lost.
    check([5.0, 4.0, 2.0, 3.0, 0.0], oracle, {"wpra": 21 / 22, "kendall": 0.8})


def test_wpra_splits_a_tie_at_the_third_place() -> None:
    """Third and fourth tie at 3: each is in the top three half the time; so counts its pair with the last."""
    oracle = [5.0, 4.0, 3.0, 3.0, 0.0]
    # weights: 1+2+2+5, 1+1+4, (3+3)/2 = 19; predicting the last above the third loses 3/2
    check([5.0, 4.0, 1.0, 3.0, 2.0], oracle, {"wpra": 17.5 / 19})


def test_one_group() -> None:
    check(
        [2.0], [-1.0],
        {"top1": 1, "mrr": 1, "ndcg@3": 1, "ndcg@5:linear": 1, "spearman": 0, "kendall": 0,
         "rbo": rbo_max(1), "wpra": 0.5},
    )  # fmt: skip
    assert rbo_max(1) == pytest.approx(0.1)


def test_largest_rbo() -> None:
    assert rbo_max(3) == pytest.approx(0.1 * (1 + 0.9 + 0.81))


@pytest.mark.parametrize("groups", [2, 3, 4, 5, 9])
@pytest.mark.parametrize("tied", [False, True])
def test_ndcg_against_scikit_learn(groups: int, tied: bool) -> None:
    """Which also averages over ties, and takes any gains."""
    oracle, predicted = rows(0, (30, groups)), rows(1, (30, groups))
    predicted = np.round(predicted) if tied else predicted
    found = metrics(predicted, oracle)
    rank = groups + 1 - stats.rankdata(oracle, axis=1)
    for k in (3, 5):
        for suffix, gain in (("", 2.0 ** (groups - rank) - 1), (":linear", groups - rank + 1)):
            pairs = zip(gain, predicted, strict=True)
            expected = [ndcg_score(g[None], s[None], k=k) for g, s in pairs]
            np.testing.assert_allclose(found[f"ndcg@{k}{suffix}"], expected, rtol=1e-12)


@pytest.mark.parametrize("digits", [0, 8])
@pytest.mark.parametrize("groups", [3, 10])
def test_correlations_against_scipy(groups: int, digits: int) -> None:
    """Rounding to whole numbers ties many groups; rows that became constant have no correlation in scipy."""
    oracle, predicted = (np.round(rows(seed, (40, groups)), digits) for seed in (2, 3))
    varied = (np.ptp(oracle, axis=1) > 0) & (np.ptp(predicted, axis=1) > 0)
    assert varied.sum() > 30
    oracle, predicted = oracle[varied], predicted[varied]
    found = metrics(predicted, oracle)
    for name, reference in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        expected = [reference(s, g).statistic for s, g in zip(predicted, oracle, strict=True)]
        np.testing.assert_allclose(found[name], expected, atol=1e-12)


def test_random_row_is_the_mean_over_all_rankings() -> None:
    """All 120 rankings of five groups; the second oracle has ties, the third is constant."""
    oracle = np.array([[0.3, -1.0, 2.0, 0.7, 0.1], [1.0, 1.0, 0.5, 0.5, 0.5], [2.0] * 5])
    every = [metrics(np.tile(p, (3, 1)), oracle) for p in permutations(range(5))]
    found = random_expectation(oracle)
    for name in METRICS:
        np.testing.assert_allclose(found[name], np.mean([m[name] for m in every], axis=0), atol=1e-12)
    np.testing.assert_allclose(found["top1"], 1 / 5)
    np.testing.assert_allclose(found["mrr"], (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5)
    np.testing.assert_allclose(found["wpra"], 1 / 2)


def test_random_row_is_the_mean_of_random_scores() -> None:
    """Ten groups, 4,000 seeded predictions: within five standard errors."""
    oracle = np.repeat(rows(4, (1, 10)), 4000, axis=0)
    found, expected = metrics(rows(5, oracle.shape), oracle), random_expectation(oracle[:1])
    for name in METRICS:
        error = found[name].std(ddof=1) / sqrt(4000)
        assert error > 0
        assert abs(found[name].mean() - expected[name][0]) < 5 * error, name


def test_queries_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many queries are worked on at a time, each has the numbers it has alone."""
    oracle, predicted = np.round(rows(6, (17, 6)), 1), np.round(rows(7, (17, 6)), 1)
    whole = metrics(predicted, oracle)
    monkeypatch.setattr(rank_agreement, "_BLOCK", 4 * 36)
    blocks = metrics(predicted, oracle)
    for name in METRICS:
        assert whole[name].shape == (17,)
        assert whole[name].dtype == np.float64
        np.testing.assert_allclose(blocks[name], whole[name], rtol=1e-14)
        np.testing.assert_allclose(metrics(predicted[3:4], oracle[3:4])[name], whole[name][3:4], rtol=1e-14)


def test_many_groups_do_not_overflow() -> None:
    """2^1099 has no float64."""
    oracle = rows(8, (1, 1100))
    found = metrics(oracle, oracle)
    assert found["ndcg@3"] == pytest.approx([1.0])
    assert metrics(-oracle, oracle)["ndcg@3"] == pytest.approx([0.0], abs=1e-12)


def test_no_queries() -> None:
    assert all(len(v) == 0 for v in metrics(np.zeros((0, 4)), np.zeros((0, 4))).values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite(bad: float) -> None:
    scores, broken = np.zeros((3, 2)), np.zeros((3, 2))
    broken[2, 1] = bad
    with pytest.raises(DataError, match="predicted scores are not finite; the first is of query 2, group 1"):
        metrics(broken, scores)
    with pytest.raises(DataError, match="oracle scores"):
        metrics(scores, broken)


@pytest.mark.parametrize(
    ("one", "other"), [((3, 2), (2, 3)), ((3, 2), (3, 3)), ((4,), (4,)), ((3, 0), (3, 0)), ((3, 1), (3, 2))]
)
def test_shapes_must_be_alike(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        metrics(np.zeros(one), np.zeros(other))
