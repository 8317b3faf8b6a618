from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guda_cli.attribution.aggregate import evenly, group_scores, parse_aggregation, subset, top_instances
from guda_cli.attribution.rivals import influence
from guda_cli.attribution.rivals.influence import choose_ridge
from guda_cli.errors import DataError, UsageError

SCORES = np.array([[1.0, 4.0, 2.0, -3.0, 0.0], [0.0, -1.0, -2.0, 5.0, 7.0]])
MEMBERS = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1]], dtype=bool)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean", [[7 / 3, -1 / 3], [-1.0, 10 / 3]]),
        ("sum", [[7.0, -1.0], [-3.0, 10.0]]),
        ("max", [[4.0, 2.0], [0.0, 7.0]]),
        ("top:1", [[4.0, 2.0], [0.0, 7.0]]),
        ("top:2", [[3.0, 1.0], [-0.5, 6.0]]),
        ("top:10", [[7 / 3, -1 / 3], [-1.0, 10 / 3]]),
    ],
)
def test_aggregates_by_hand(text: str, expected: list[list[float]]) -> None:
    how = parse_aggregation(text)
    assert str(how) == text
    np.testing.assert_allclose(group_scores(SCORES, MEMBERS, how), expected)


def test_the_mean_is_the_default() -> None:
    assert np.array_equal(
        group_scores(SCORES, MEMBERS), group_scores(SCORES, MEMBERS, parse_aggregation("mean"))
    )


@pytest.mark.parametrize("text", ["median", "", "top", "top:", "top:0", "top:-1", "top:x", "top:²", "mean:2"])
def test_other_aggregations_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown aggregation"):
        parse_aggregation(text)


def test_a_group_without_images_is_named() -> None:
    members = np.hstack([MEMBERS, np.zeros((5, 1), dtype=bool)])
    with pytest.raises(DataError, match="'birds' has no training image"):
        group_scores(SCORES, members, groups=["cats", "dogs", "birds"])
    with pytest.raises(DataError, match="number 2"):
        group_scores(SCORES, members)


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(24)), st.sampled_from(["mean", "sum", "max", "top:3"]), st.integers(4, 40))
def test_the_order_of_the_training_set_does_not_matter(order: list[int], text: str, dims: int) -> None:
    rng = np.random.default_rng(dims)
    members = rng.random((24, 3)) < 0.4
    members[:3] = np.eye(3, dtype=bool)
    phi, phi_q = rng.standard_normal((24, dims)), rng.standard_normal((5, dims))

    def found(rows: list[int]) -> np.ndarray:
        ridge = choose_ridge(phi[rows], members[rows])
        scores = influence.scores(phi_q, phi[rows], ridge.value, weights=1.0 + np.arange(24.0)[rows])
        return group_scores(scores, members[rows], parse_aggregation(text))

    np.testing.assert_allclose(found(order), found(list(range(24))), rtol=1e-8, atol=1e-10)


def test_top_instances_come_highest_first_with_ties_by_index() -> None:
    scores = np.array([[1.0, 3.0, 3.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert top_instances(scores, 4).tolist() == [[1, 2, 4, 0], [0, 1, 2, 3]]
    assert top_instances(scores, 9).shape == (2, 5)


def partition(sizes: list[int]) -> np.ndarray:
    return np.eye(len(sizes), dtype=bool)[np.repeat(np.arange(len(sizes)), sizes)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 99))
def test_a_partition_gives_each_group_its_share(sizes: list[int], per_group: int, seed: int) -> None:
    members = partition(sizes)
    chosen = subset(members, per_group, seed)
    assert members[chosen].sum(axis=0).tolist() == [min(size, per_group) for size in sizes]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert np.array_equal(chosen, subset(members, per_group, seed))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10), st.integers(0, 99))
def test_overlapping_groups_all_get_theirs(per_group: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    members = rng.random((60, 5)) < np.array([0.9, 0.5, 0.3, 0.1, 0.05])
    chosen = subset(members, per_group, seed)
    assert (members[chosen].sum(axis=0) >= np.minimum(members.sum(axis=0), per_group)).all()
    assert len(chosen) <= 5 * per_group
    assert members[chosen].any(axis=1).all()


def test_shared_images_count_for_the_larger_group() -> None:
    members = np.ones((40, 2), dtype=bool)
    members[4:, 1] = False  # the second group is 4 of the first one's images
    chosen = subset(members, 6, seed=0)
    assert len(chosen) == 6
    assert members[chosen].sum(axis=0).tolist() == [6, 4]


def test_the_seed_chooses() -> None:
    members = partition([50, 50])
    found = [tuple(subset(members, 5, seed).tolist()) for seed in range(20)]
    assert len(set(found)) == 20
    assert len({i for one in found for i in one}) > 60  # of 100: no part of the set is left out


def test_by_digests_the_order_of_the_files_does_not_matter() -> None:
    members, digests = partition([9, 9, 9]), [f"d{i}" for i in range(27)]
    order = np.random.default_rng(0).permutation(27)
    shuffled = subset(members[order], 4, 7, [digests[i] for i in order])
    assert sorted(order[shuffled]) == subset(members, 4, 7, digests).tolist()


def test_no_limit_is_everything() -> None:
    members = np.zeros((5, 2), dtype=bool)
    assert subset(members, None, 0).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="0 training images"):
        subset(members, 0, 0)


def test_evenly_fills_up_from_the_larger_groups() -> None:
    """Groups of 2, 3 and 20 images: of 12 both small ones whole and 7 of the large one; of 6 two of each."""
    membership = np.zeros((25, 3), dtype=bool)
    membership[:2, 0] = membership[2:5, 1] = membership[5:, 2] = True
    digests = [f"{i:03d}" for i in range(25)]
    assert membership[evenly(membership, 12, digests)].sum(axis=0).tolist() == [2, 3, 7]
    assert membership[evenly(membership, 6, digests)].sum(axis=0).tolist() == [2, 2, 2]
    assert evenly(membership, 99, digests).tolist() == list(range(25))
    turned = evenly(membership[::-1], 6, digests[::-1])
    assert sorted(24 - turned) == evenly(membership, 6, digests).tolist()  # by digest, not by place
