from __future__ import annotations

import numpy as np
import pytest

from guda_cli.data import similarity
from guda_cli.data.dataset import Dataset, make_dataset
from guda_cli.data.similarity import Accuracy, accuracy, nearest_groups
from guda_cli.intervals import wilson95


def _line(values: dict[str, tuple[int, set[str]]]) -> Dataset:
    """One-pixel images: the distance is the difference of the values."""
    images = np.array([v for v, _ in values.values()], np.uint8).reshape(-1, 1, 1, 1)
    return make_dataset(images, list(values), [g for _, g in values.values()])


def _queries(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


def test_majority_then_rank_then_the_nearest() -> None:
    ds = _line({"1": (10, {"a"}), "2": (12, {"b"}), "3": (14, {"b"}), "4": (200, {"a"}), "5": (202, {"c"})})
    assert nearest_groups(_queries(10), ds, neighbours=1) == ["a"]
    assert nearest_groups(_queries(10), ds, neighbours=3) == ["b"]
    assert nearest_groups(_queries(10), ds, neighbours=2) == ["a"]  # one each: the nearer weighs more
    assert nearest_groups(_queries(10), ds, neighbours=4) == ["a"]  # ranks 4+1 and 3+2 tie: the nearest
    assert nearest_groups(_queries(201, 11), ds, neighbours=99) == nearest_groups(_queries(201, 11), ds)


def test_an_image_votes_for_all_its_groups() -> None:
    ds = _line({"1": (0, {"a", "z"}), "2": (1, {"z"}), "3": (2, {"a"}), "4": (3, {"z"})})
    assert nearest_groups(_queries(0), ds, neighbours=2) == ["z"]
    assert nearest_groups(_queries(0), ds, neighbours=4) == ["z"]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 3, 4, 4), dtype=np.uint8)
    ds = make_dataset(images, [f"{i:02d}" for i in range(60)], [{f"g{i % 7}"} for i in range(60)])
    queries = rng.integers(0, 256, (11, 3, 4, 4), dtype=np.uint8)
    expected = nearest_groups(queries, ds)
    monkeypatch.setattr(similarity, "_TRAIN_VALUES", 48 * 7)
    assert nearest_groups(queries, ds, block=3) == expected
    brute = ((queries[:, None].astype(int) - images[None]) ** 2).sum(axis=(2, 3, 4)).argmin(axis=1)
    assert nearest_groups(queries, ds, neighbours=1) == [f"g{i % 7}" for i in brute]


def test_no_queries_and_a_wrong_shape() -> None:
    ds = _line({"1": (0, {"a"}), "2": (1, {"b"})})
    assert nearest_groups(_queries(), ds) == []
    with pytest.raises(ValueError):
        nearest_groups(np.zeros((1, 3, 1, 1), np.uint8), ds)


def test_accuracy_leaves_the_image_and_its_copies_out() -> None:
    near = {f"{g}{i}": (v + i, {g}) for g, v in (("a", 10), ("b", 200)) for i in range(6)}
    assert accuracy(_line(near)) == Accuracy(12, 12, 0.5)
    twins = {
        f"{g}{i}": (40 * i, {g}) for i in range(4) for g in "ab"
    }  # each has its only equal in the other group
    found = accuracy(_line(twins), neighbours=1)
    assert found.right < 8, "a copy's group is no evidence of the image's own"
    alone = accuracy(_line({"1": (5, {"a"}), "2": (5, {"b"})}))
    assert (alone.right, alone.images) == (0, 2), "where all are copies there is nobody to ask"


def test_accuracy_counts_any_own_group() -> None:
    both = {f"{i}": (i, {"all", "odd" if i % 2 else "even"}) for i in range(12)}
    assert accuracy(_line(both)) == Accuracy(12, 12, 1.0)


@pytest.mark.parametrize(
    ("right", "images", "chance", "trusted"),
    [
        (240, 400, 0.1, True),  # 60 % of ten groups, at least 55.1 %
        (230, 400, 0.1, False),
        (320, 400, 0.5, True),  # 80 % of two, at least 75.8 %
        (315, 400, 0.5, False),
        (120, 400, 1 / 300, False),  # far above chance, and wrong two times of three
        (396, 400, 0.95, False),  # the largest group alone has 95 %
        (398, 400, 0.95, True),
        (10, 10, 0.5, False),  # all right, of too few
        (20, 20, 0.5, True),
    ],
)
def test_when_it_is_trusted(right: int, images: int, chance: float, trusted: bool) -> None:
    assert Accuracy(right, images, chance).trusted is trusted


def test_wilsons_interval() -> None:
    low, high = wilson95(8, 10)
    assert (low, high) == pytest.approx((0.4901625, 0.9433178))  # as published tables have it
    assert wilson95(0, 0) == (0.0, 1.0)
    assert wilson95(10, 10)[1] == pytest.approx(1.0)
