from __future__ import annotations

import numpy as np
import pytest

from guda_cli.data import similarity
from guda_cli.data.dataset import Dataset, make_dataset
from guda_cli.data.similarity import nearest_groups


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
