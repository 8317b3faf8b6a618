"""Nearest retain images against scikit-learn, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from guda_cli.unlearning.operators.retrack import nearest


def rows(count: int, seed: int, dim: int = 48) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (count, dim)).astype(np.float32))


@pytest.mark.parametrize(
    ("forget", "retain", "k"), [(1, 1, 1), (5, 30, 3), (17, 40, 40), (9, 6, 20), (3, 65, 10)]
)
@pytest.mark.parametrize("block", [1, 4, 16, 2048])
def test_same_neighbours_as_a_brute_force_search(forget: int, retain: int, k: int, block: int) -> None:
    f, r = rows(forget, 1), rows(retain, 2)
    found = nearest(f, r, k, block=block)
    model = NearestNeighbors(n_neighbors=min(k, retain), algorithm="brute").fit(r.double().numpy())
    expected = model.kneighbors(f.double().numpy(), return_distance=False)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), expected)


@given(
    values=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    k=st.integers(1, 12),
    block=st.integers(1, 45),
)
@settings(max_examples=60, deadline=None)
def test_ties_go_to_the_lower_row(values: list[int], k: int, block: int) -> None:
    """Whole numbers, so that distances are exact and many are equal."""
    retain = torch.tensor(values, dtype=torch.float32).unsqueeze(1)
    found = nearest(torch.tensor([[0.0], [2.0]]), retain, k, block=block)
    expected = [sorted(range(len(values)), key=lambda i: (abs(values[i] - x), i))[:k] for x in (0, 2)]
    assert found.tolist() == expected


def test_ties_go_to_the_lower_row_in_one_large_block() -> None:
    retain = torch.zeros(500, 4)
    retain[::2] = 1.0
    assert nearest(torch.zeros(3, 4), retain, 5).tolist() == [[1, 3, 5, 7, 9]] * 3
