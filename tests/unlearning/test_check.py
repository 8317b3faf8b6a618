"""The check of an unlearned model on made-up losses, and the rows it looks at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guda_cli.unlearning import check
from tests.diffusion.tiny import FunctionDenoiser, bytes_images, make_schedule, wavy


def test_rows_cycle_through_small_groups() -> None:
    mask = torch.zeros(9, dtype=torch.bool)
    mask[4] = True
    assert check.evaluation_rows(mask, 5).tolist() == [4] * 5
    mask[[1, 7]] = True
    rows = check.evaluation_rows(mask, 7).tolist()
    assert sorted(rows[:3]) == [1, 4, 7]
    assert rows == (rows[:3] * 3)[:7]


def test_rows_of_large_groups_are_distinct_members() -> None:
    mask = torch.arange(100) % 2 == 0
    rows = check.evaluation_rows(mask, 30).tolist()
    assert len(set(rows)) == 30
    assert all(row % 2 == 0 for row in rows)
    assert rows == check.evaluation_rows(mask, 30).tolist()
    assert rows != sorted(rows)


def test_losses_are_stratified_in_t_and_share_their_noise() -> None:
    schedule = make_schedule("linear", 40)
    images, rows = bytes_images(6, (1, 4, 4)), torch.tensor([3, 3, 0, 5, 1, 1, 2, 4])
    seen: list[torch.Tensor] = []

    def predict(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return wavy(x_t, t)

    found = check.losses(FunctionDenoiser(schedule, predict), images, rows, batch_size=3)
    assert torch.cat(seen).tolist() == [1, 6, 11, 16, 21, 26, 31, 36]
    assert found.shape == (8,)
    whole = check.losses(FunctionDenoiser(schedule, wavy), images, rows, batch_size=8)
    np.testing.assert_allclose(found, whole, rtol=1e-6)
    exact = check.losses(FunctionDenoiser(schedule, lambda x, t: torch.zeros_like(x)), images, rows)
    assert exact.mean() == pytest.approx(1.0, abs=4 * (2 / (8 * 16)) ** 0.5)  # mean of squared unit noise


def told(value: float) -> FunctionDenoiser:
    return FunctionDenoiser(make_schedule("linear", 40), lambda x, t: torch.full_like(x, value))


def test_single_images_are_looked_at_alike() -> None:
    """The same image gives the same number at the same place, whatever the batch; it is a mean of logs."""
    images = bytes_images(6, (1, 4, 4))
    denoiser = FunctionDenoiser(make_schedule("linear", 40), wavy)
    rows = torch.tensor([3, 0, 5, 1])
    whole = check.image_losses(denoiser, images, rows)
    np.testing.assert_allclose(whole, check.image_losses(denoiser, images, rows, batch_size=3), rtol=1e-6)
    far = check.image_losses(told(1e4), images, rows)
    np.testing.assert_allclose(far, 2 * np.log(1e4), rtol=1e-3)


def shown(members: list[int], count: int = 12) -> check.Shown:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[members] = True
    return check.Shown(bytes_images(count, (1, 4, 4)), mask)


def test_a_check_looks_at_held_out_images_where_there_are_two_of_each() -> None:
    found = check.Check(shown([0, 1, 2]), shown([0, 1], 5), steps=5, batch_size=16).look(told(0.0))
    assert found.training.group.shape == found.training.rest.shape == (80,)
    assert found.held_out is not None
    assert found.held_out.group.shape == (80,)
    assert found.membership is not None
    assert [len(values) for values in found.membership] == [3, 2]  # each image once
    for few in (None, shown([0], 5), shown([0, 1, 2, 3], 5)):
        found = check.Check(shown([0, 1, 2]), few, steps=5, batch_size=16).look(told(0.0))
        assert found.held_out is None
        assert found.membership is None
