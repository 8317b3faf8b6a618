"""Identities of the agreement metrics over any scores; ties against every way to break them."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations
from math import log2
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guda_cli.attribution.oracle_seeds import double_centre, score_correlation
from guda_cli.attribution.rank_agreement import METRICS, metrics, random_expectation, rbo_max

Row = list[int]
untimed = settings(deadline=None)
BY_RANK = tuple(name for name in METRICS if name != "wpra")


def distinct(least: int = 2) -> st.SearchStrategy[Row]:
    return st.lists(st.integers(-60, 60), min_size=least, max_size=9, unique=True)


@st.composite
def two_rows(draw: st.DrawFn, bound: int = 6, most: int = 9) -> tuple[Row, Row]:
    """Scores of as many groups twice, often tied."""
    size = draw(st.integers(1, most))
    row = st.lists(st.integers(-bound, bound), min_size=size, max_size=size)
    return draw(row), draw(row)


def of(predicted: Row, oracle: Row) -> dict[str, float]:
    found = metrics(np.array([predicted], float), np.array([oracle], float))
    return {name: float(value[0]) for name, value in found.items()}


@untimed
@given(distinct())
def test_the_oracle_agrees_with_itself(oracle: Row) -> None:
    expected = dict.fromkeys(METRICS, 1.0) | {"rbo": rbo_max(len(oracle))}
    assert of(oracle, oracle) == pytest.approx(expected, abs=1e-12)


@untimed
@given(distinct())
def test_the_reverse_of_the_oracle(oracle: Row) -> None:
    found = of([-g for g in oracle], oracle)
    assert found["spearman"] == pytest.approx(-1.0)
    assert found["kendall"] == pytest.approx(-1.0)
    assert found["top1"] == found["wpra"] == 0.0
    assert found["mrr"] == pytest.approx(1.0 / len(oracle))


@untimed
@given(two_rows())
def test_ranges(both: tuple[Row, Row]) -> None:
    for name, value in of(*both).items():
        low, high = {
            "spearman": (-1.0, 1.0),
            "kendall": (-1.0, 1.0),
            "rbo": (0.0, rbo_max(len(both[0]))),
        }.get(name, (0.0, 1.0))
        assert low - 1e-12 <= value <= high + 1e-12, name


@untimed
@given(two_rows())
def test_only_the_predicted_order_counts(both: tuple[Row, Row]) -> None:
    predicted, oracle = both
    assert of([s**3 + 7 * s - 5 for s in predicted], oracle) == of(predicted, oracle)


@untimed
@given(two_rows())
def test_only_the_oracles_order_counts_but_for_wpra(both: tuple[Row, Row]) -> None:
    predicted, oracle = both
    base, cubed = of(predicted, oracle), of(predicted, [g**3 + 7 * g - 5 for g in oracle])
    assert {name: cubed[name] for name in BY_RANK} == {name: base[name] for name in BY_RANK}
    assert of(predicted, [8 * g + 3 for g in oracle])["wpra"] == pytest.approx(base["wpra"], abs=1e-12)


@untimed
@given(two_rows(), st.randoms(use_true_random=False))
def test_groups_have_no_order_of_their_own(both: tuple[Row, Row], random: Random) -> None:
    places = list(range(len(both[0])))
    random.shuffle(places)
    relabelled = of([both[0][i] for i in places], [both[1][i] for i in places])
    assert relabelled == pytest.approx(of(*both), abs=1e-12)


@untimed
@given(two_rows(), st.integers(-9, 9))
def test_a_constant_prediction_is_a_random_one(both: tuple[Row, Row], level: int) -> None:
    oracle = both[1]
    found = random_expectation(np.array([oracle], float))
    assert of([level] * len(oracle), oracle) == {name: value[0] for name, value in found.items()}


@untimed
@given(two_rows())
def test_what_is_symmetric(both: tuple[Row, Row]) -> None:
    there, back = of(*both), of(*reversed(both))
    for name in ("top1", "spearman", "kendall", "rbo"):
        assert there[name] == pytest.approx(back[name], abs=1e-12), name


@untimed
@given(two_rows(bound=2, most=4))
def test_ties_are_every_way_to_break_them(both: tuple[Row, Row]) -> None:
    """Against rankings without ties, one at a time, with sets and lists."""
    predicted, oracle = both
    ways = [plain(p, g, oracle) for p in broken(predicted) for g in broken(oracle)]
    found = of(predicted, oracle)
    for name in ways[0]:
        assert found[name] == pytest.approx(np.mean([way[name] for way in ways]), abs=1e-12), name


def broken(scores: Row) -> list[tuple[int, ...]]:
    """All orders of the groups in which no group stands above a better one."""
    every = permutations(range(len(scores)))
    return [p for p in every if all(scores[a] >= scores[b] for a, b in pairwise(p))]


def plain(predicted: tuple[int, ...], ranked: tuple[int, ...], oracle: Row) -> dict[str, float]:
    """The definitions of docs/methods.md for two orders of the groups; tied in neither."""
    n = len(oracle)
    out = {
        "top1": float(predicted[0] == ranked[0]),
        "mrr": 1 / (1 + predicted.index(ranked[0])),
        "rbo": sum(0.1 * 0.9 ** (d - 1) * len({*predicted[:d]} & {*ranked[:d]}) / d for d in range(1, n + 1)),
    }
    for k in (3, 5):
        exponential = [2.0 ** (n - r) - 1 for r in range(1, n + 1)]
        out[f"ndcg@{k}"] = dcg(predicted, ranked, exponential, k) / (dcg(ranked, ranked, exponential, k) or 1)
        linear = [n - r + 1.0 for r in range(1, n + 1)]
        out[f"ndcg@{k}:linear"] = dcg(predicted, ranked, linear, k) / dcg(ranked, ranked, linear, k)
    if n == 1:
        out["ndcg@3"] = out["ndcg@5"] = 1.0
    kept = total = 0.0
    for a, b in combinations(ranked, 2):
        if a in ranked[:3] or b in ranked[:3]:
            total += oracle[a] - oracle[b]
            kept += (oracle[a] - oracle[b]) * (predicted.index(a) < predicted.index(b))
    out["wpra"] = kept / total if total else 0.5
    return out


def dcg(order: tuple[int, ...], ranked: tuple[int, ...], gains: list[float], k: int) -> float:
    return sum(gains[ranked.index(group)] / log2(2 + at) for at, group in enumerate(order[:k]))


@st.composite
def two_matrices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.integers(2, 7)), draw(st.integers(1, 5))
    cells = st.lists(st.integers(-20, 20), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    return np.array(draw(cells), float).reshape(shape), np.array(draw(cells), float).reshape(shape)


@untimed
@given(two_matrices(), st.integers(1, 50), st.integers(-999, 999))
def test_correlations_ignore_scale_and_offset(
    both: tuple[np.ndarray, np.ndarray], scale: int, offset: int
) -> None:
    base = score_correlation(*both)
    assert abs(base) <= 1.0
    assert score_correlation(scale * both[0] + offset, both[1]) == pytest.approx(base, abs=1e-9)
    assert score_correlation(-both[0], both[1]) == pytest.approx(-base, abs=1e-12)
    assert score_correlation(both[1], both[0]) == pytest.approx(base, abs=1e-12)


@untimed
@given(two_matrices())
def test_double_centring_leaves_no_means_and_is_done_once(both: tuple[np.ndarray, np.ndarray]) -> None:
    centred = double_centre(both[0])
    np.testing.assert_allclose(centred.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(centred.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(double_centre(centred), centred, atol=1e-12)
