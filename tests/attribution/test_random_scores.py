"""The floor: uniform, and each number a function of its own query and name alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from guda_cli.attribution.rivals.random_scores import random_scores

QUERIES = [f"query-{i}" for i in range(60)]
GROUPS = [f"group-{i}" for i in range(50)]


def test_uniform() -> None:
    found = random_scores(QUERIES, GROUPS, 0)
    assert found.shape == (60, 50)
    assert stats.kstest(found.ravel(), "uniform").pvalue > 0.001
    assert found.min() >= 0.0
    assert found.max() < 1.0
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.06


def test_every_group_is_first_equally_often() -> None:
    found = random_scores([str(i) for i in range(3000)], GROUPS[:5], 1)
    counts = np.bincount(found.argmax(axis=1), minlength=5)
    assert stats.chisquare(counts).pvalue > 0.001


@given(st.permutations(range(6)), st.permutations(range(7)), st.integers(1, 6))
def test_companions_and_order_play_no_part(rows: list[int], columns: list[int], kept: int) -> None:
    whole = random_scores(QUERIES[:6], GROUPS[:7], 3)
    mixed = random_scores([QUERIES[i] for i in rows[:kept]], [GROUPS[j] for j in columns], 3)
    np.testing.assert_array_equal(mixed, whole[np.ix_(rows[:kept], columns)])


def test_seed_changes_all() -> None:
    assert (random_scores(QUERIES, GROUPS, 0) != random_scores(QUERIES, GROUPS, 1)).all()


def test_nothing_asked_nothing_given() -> None:
    assert random_scores([], GROUPS, 0).shape == (0, 50)
