"""The check of an unlearned model on made-up losses, and the rows it looks at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guda_cli.unlearning import check
from tests.diffusion.tiny import FunctionDenoiser, bytes_images, make_schedule, wavy

BEFORE = np.array([1.0, 2.0, 3.0, 4.0])


def test_rise_on_the_group_and_none_on_the_rest_passes() -> None:
    found = check.judge((BEFORE, BEFORE + 1.0), (BEFORE, BEFORE))
    assert found.passed
    assert (found.group_before, found.group_after) == (2.5, 3.5)
    assert (found.rest_before, found.rest_after) == (2.5, 2.5)
    assert found.to_dict()["passed"] is True


@pytest.mark.parametrize(
    ("rise", "passed"),
    [
        ([0.0, 0.0, 0.0, 0.0], False),
        ([-1.0, -1.0, -1.0, -1.0], False),
        # mean 1, standard deviation 2 / sqrt(3), error 0.577
        ([2.0, 2.0, 0.0, 0.0], False),
        # mean 1, standard deviation sqrt(2/3), error 0.408
        ([2.0, 1.0, 1.0, 0.0], True),
    ],
)
def test_rise_must_exceed_two_standard_errors(rise: list[float], passed: bool) -> None:
    found = check.judge((BEFORE, BEFORE + np.array(rise)), (BEFORE, BEFORE))
    assert found.passed == passed
    assert ("did not rise" in found.why) == (not passed)


@pytest.mark.parametrize(
    ("factor", "passed"), [(0.5, True), (1.0, True), (1.099, True), (1.101, False), (2.0, False)]
)
def test_rest_may_lose_ten_percent(factor: float, passed: bool) -> None:
    found = check.judge((BEFORE, BEFORE + 1.0), (BEFORE, BEFORE * factor))
    assert found.passed == passed
    assert ("rest rose" in found.why) == (not passed)


@pytest.mark.parametrize(("rise", "passed"), [(-0.5, True), (-1.0, False), (-1.5, False)])
def test_a_model_that_was_still_learning_is_judged_against_the_rest(rise: float, passed: bool) -> None:
    """The rest's loss fell by 1: only a group whose loss fell by less was forgotten."""
    found = check.judge((BEFORE, BEFORE + rise), (BEFORE, BEFORE - 1.0))
    assert found.passed == passed
    assert ("against the rest's, which fell" in found.why) == passed
    assert ("the rest's -1.00e+00" in found.why) == (not passed)


def test_both_failures_are_named() -> None:
    why = check.judge((BEFORE, BEFORE), (BEFORE, 2 * BEFORE)).why
    assert "did not rise" in why
    assert "rest rose" in why


def test_losses_that_are_not_numbers_fail() -> None:
    broken = BEFORE.copy()
    broken[1] = np.nan
    assert not check.judge((BEFORE, broken), (BEFORE, BEFORE)).passed
    assert not check.judge((BEFORE, BEFORE + 1), (BEFORE, broken)).passed


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
