"""Batches that do not fit in memory are halved, with the same results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli import memory
from guda_cli.diffusion import elbo, grid
from guda_cli.diffusion.batch_size import BatchSize
from tests.diffusion.tiny import FunctionDenoiser, float_images, make_schedule, wavy

GRID = grid.build(grid.spec("strata:even", 8, 2, 1), 50)
BEYOND = 1 << 55  # bytes that no machine has


class Small:
    """A denoiser on a machine with room for `most` rows: it asks torch for more than there is."""

    def __init__(self, most: int) -> None:
        self.most, self.seen = most, list[int]()

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.seen.append(len(x_t))
        if len(x_t) > self.most:
            torch.empty(BEYOND, dtype=torch.uint8)
        return wavy(x_t, t)


def terms(small: Small, rows: BatchSize) -> np.ndarray:
    denoiser = FunctionDenoiser(make_schedule(), small)
    return rows.fit(
        lambda size: elbo.image_terms(
            denoiser, float_images(4), ["a", "b", "c", "d"], GRID, seed=1, batch_size=size
        )
    )


def test_halved_until_it_fits_told_once_and_the_same_numbers() -> None:
    told: list[str] = []
    small, rows = Small(9), BatchSize(64, told.append)
    found = terms(small, rows)
    assert small.seen == [64, 32, 16] + [8] * 8
    assert rows.rows == 8
    np.testing.assert_array_equal(found, terms(Small(64), BatchSize(64, told.append)))
    terms(small, rows)
    assert len(told) == 1, "it stays at what fits"
    assert "64 rows of a batch did not fit in memory" in told[0]
    assert "8 at a time" in told[0]


def test_a_single_row_that_does_not_fit_is_an_error() -> None:
    small = Small(0)
    with pytest.raises(RuntimeError) as caught:
        terms(small, BatchSize(4, lambda text: None))
    assert memory.ran_out(caught.value)
    assert small.seen == [4, 2, 1]


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)  # fmt: skip
def test_only_memory_halves(error: Exception, ran_out: bool) -> None:
    sizes: list[int] = []

    def work(size: int) -> int:
        sizes.append(size)
        if size > 2:
            raise error
        return size

    if ran_out:
        assert BatchSize(8, lambda text: None).fit(work) == 2
        assert sizes == [8, 4, 2]
    else:
        with pytest.raises(type(error)):
            BatchSize(8, lambda text: None).fit(work)
        assert sizes == [8]
