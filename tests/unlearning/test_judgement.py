"""Verdicts on made-up losses."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.diffusion.schedule import Array
from guda_cli.unlearning.judgement import CheckResult, Losses, Sides, completed, judge

BEFORE = np.array([1.0, 2.0, 3.0, 4.0])


def of(group: Array, rest: Array) -> CheckResult:
    """The check of a model with these losses after, and BEFORE before."""
    return judge(Losses(Sides(BEFORE, BEFORE)), Losses(Sides(group, rest)))


def held(group: Array, rest: Array, told: tuple[Array, Array] | None = None) -> CheckResult:
    """The same on held-out images; on training images the group's loss rose and the rest's was kept."""
    told = told or (BEFORE, BEFORE)
    before = Losses(Sides(BEFORE, BEFORE), Sides(BEFORE, BEFORE), (BEFORE, BEFORE + 0.5))
    return judge(before, Losses(Sides(BEFORE + 1.0, BEFORE), Sides(group, rest), told))


def test_rise_on_the_group_and_none_on_the_rest_passes() -> None:
    found = of(BEFORE + 1.0, BEFORE)
    assert found.passed
    assert found.to_dict() == {
        "group_before": 2.5,
        "group_after": 3.5,
        "rest_before": 2.5,
        "rest_after": 2.5,
        "passed": True,
        "verdict": "passed",
        "why": "the group's loss rose (+1.00e+00 ± 0.0e+00), the rest's was kept (+0.0%, at most 10%)",
    }


@pytest.mark.parametrize(
    ("rise", "verdict", "why"),
    [
        ([0.0, 0.0, 0.0, 0.0], "failed", "did not rise"),
        ([-1.0, -1.0, -1.0, -1.0], "failed", "did not rise"),
        # mean 1, standard deviation 2 / sqrt(3), error 0.577
        ([2.0, 2.0, 0.0, 0.0], "doubtful", "within its error (+1.00e+00 ± 5.8e-01)"),
        # mean 1, standard deviation sqrt(2/3), error 0.408
        ([2.0, 1.0, 1.0, 0.0], "passed", "rose (+1.00e+00 ± 4.1e-01)"),
    ],
)
def test_rise_must_exceed_two_standard_errors(rise: list[float], verdict: str, why: str) -> None:
    found = of(BEFORE + np.array(rise), BEFORE)
    assert found.verdict == verdict
    assert why in found.why


@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (1.099, True), (1.101, False), (2.0, False)])
def test_rest_may_lose_ten_percent(factor: float, passed: bool) -> None:
    found = of(BEFORE + 1.0, BEFORE * factor)
    assert found.verdict == ("passed" if passed else "failed")
    assert ("rest rose too much" in found.why) == (not passed)


@pytest.mark.parametrize(("rise", "verdict"), [(-0.5, "doubtful"), (-1.0, "failed"), (-1.5, "failed")])
def test_a_model_that_was_still_learning_is_judged_against_the_rest(rise: float, verdict: str) -> None:
    """The rest's loss fell by 1: only a group whose loss fell by less may be forgotten."""
    found = of(BEFORE + rise, BEFORE - 1.0)
    assert found.verdict == verdict
    assert not found.passed
    assert "the rest's -1.00e+00" in found.why
    assert ("still learning" in found.why) == (verdict == "doubtful")


def test_a_fall_within_its_error_is_no_doubt() -> None:
    """The rest's mean change is -0.05 with an error of 0.26."""
    found = of(BEFORE + 1.0, BEFORE + np.array([0.45, -0.55, 0.45, -0.55]))
    assert found.verdict == "passed"


def test_both_failures_are_named() -> None:
    why = of(BEFORE, 2 * BEFORE).why
    assert "did not rise" in why
    assert "rest rose too much (+100.0%, at most 10%)" in why


def test_losses_that_are_not_numbers_fail() -> None:
    broken = BEFORE.copy()
    broken[1] = np.nan
    assert of(broken, BEFORE).verdict == "failed"
    assert of(BEFORE + 1, broken).verdict == "failed"


@pytest.mark.parametrize(
    ("group", "rest", "why"),
    [
        (0.0, 1.0, "on held-out images the group's loss did not rise"),
        (1.0, 1.2, "on held-out images the loss on the rest rose too much (+20.0%"),
    ],
)
def test_held_out_images_that_disagree_leave_doubts(group: float, rest: float, why: str) -> None:
    found = held(BEFORE + group, BEFORE * rest)
    assert found.verdict == "doubtful"
    assert why in found.why


def test_training_images_must_not_be_told_from_held_out_ones() -> None:
    lows, highs = np.arange(40.0), np.arange(40.0) + 20.0
    found = held(BEFORE + 1.0, BEFORE, (lows, highs))
    assert found.verdict == "doubtful"
    assert "the group's training images can be told from held-out ones (AUC 0.8" in found.why
    found = held(BEFORE + 1.0, BEFORE, (lows, lows))
    assert found.verdict == "passed"
    assert found.to_dict()["membership"]["after"] == 0.5
    assert found.to_dict()["membership"]["before"] == pytest.approx(10 / 16)
    assert found.to_dict()["held_out"]["group_after"] == 3.5


@pytest.mark.parametrize(("passed", "verdict"), [(True, "passed"), (False, "failed")])
def test_records_of_earlier_versions_have_a_verdict(passed: bool, verdict: str) -> None:
    assert completed({"passed": passed, "why": ""})["verdict"] == verdict
    assert completed({"passed": False, "verdict": "doubtful"})["verdict"] == "doubtful"


def test_a_stored_reason_is_read_with_real_minus_signs() -> None:
    why = "the group's loss rose (+1.00e+00 ± 1.0e-02), the rest's was kept (-0.2%, at most 10%)"
    found = completed({"passed": True, "why": why})
    assert found["why"] == "the group's loss rose (+1.00 ± 0.010), the rest's was kept (−0.2%, at most 10%)"
