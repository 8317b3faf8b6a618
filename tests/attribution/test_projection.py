from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guda_cli.attribution.rivals.projection import CountSketch
from guda_cli.errors import UsageError


def vectors(count: int, parameters: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, parameters, generator=torch.Generator().manual_seed(seed))


def matrix(sketch: CountSketch) -> torch.Tensor:
    """The sketch as a dense matrix [P, dims]."""
    return sketch([torch.eye(sketch.parameters)])


def test_every_number_goes_to_one_sum_with_a_sign() -> None:
    S = matrix(CountSketch(1000, 64, seed=3))
    assert (S.abs().sum(1) == 1).all()
    assert set(S.unique().tolist()) == {-1.0, 0.0, 1.0}
    per_sum = S.abs().sum(0)
    assert per_sum.min() >= 1000 // 64 - 1  # runs of 64 fill every sum once; the last run is short
    assert per_sum.max() <= 1000 // 64 + 1
    assert 0.4 < (S.sum(1) > 0).float().mean() < 0.6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 50), st.integers(0, 5))
def test_it_is_linear_however_the_vector_is_cut(sizes: list[int], dims: int, seed: int) -> None:
    sketch = CountSketch(sum(sizes), dims, seed)
    x = vectors(3, sum(sizes), seed)
    torch.testing.assert_close(sketch(x.split(sizes, dim=1)), x @ matrix(sketch), rtol=1e-4, atol=1e-4)


def test_parts_keep_the_shape_of_parameters() -> None:
    x = vectors(2, 20)
    sketch = CountSketch(20, 7)
    parts = [x[:, :12].view(2, 3, 2, 2), x[:, 12:].view(2, 8)]
    assert torch.equal(sketch(parts), sketch([x[:, :12], x[:, 12:]]))


def test_a_vector_is_projected_by_itself() -> None:
    x = vectors(9, 500)
    sketch = CountSketch(500, 32)
    assert torch.equal(sketch([x]), torch.cat([sketch([x[:2]]), sketch([x[2:]])]))


def test_inner_products_are_unbiased_with_the_variance_said() -> None:
    x, y = vectors(2, 300)
    y = y + 0.5 * x
    dims, seeds = 20, 3000
    both = torch.stack([x, y])
    found = []
    for seed in range(seeds):
        a, b = CountSketch(300, dims, seed)([both])
        found.append(float(a @ b))
    got = torch.tensor(found, dtype=torch.float64)
    bound = float((x @ x) * (y @ y) + (x @ y) ** 2) / dims
    assert abs(float(got.mean()) - float(x @ y)) < 4 * (bound / seeds) ** 0.5
    assert 0.7 * bound < float(got.var()) < 1.1 * bound


def test_exact_with_as_many_sums_as_numbers() -> None:
    x = vectors(4, 50)
    sketch = CountSketch(50, 2048)
    assert sketch.dims == 50
    torch.testing.assert_close(sketch([x]) @ sketch([x]).T, x @ x.T)


def test_the_seed_decides_and_nothing_else() -> None:
    a, b, c = CountSketch(400, 30, 1), CountSketch(400, 30, 1), CountSketch(400, 30, 2)
    x = [vectors(2, 400)]
    assert torch.equal(a(x), b(x))
    assert not torch.equal(a(x), c(x))
    assert a.signs[:12].tolist() == [1, -1, 1, 1, 1, 1, 1, -1, 1, -1, -1, 1]  # on any machine
    assert a.shifts[:6] == [4, 23, 28, 0, 5, 29]


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="9 numbers for a projection of 10"):
        CountSketch(10, 4)([vectors(2, 9)])
    with pytest.raises(UsageError, match="0 dimensions"):
        CountSketch(10, 0)
