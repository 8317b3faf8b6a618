"""Verdicts: p-values by hand, their rate of error, groups of unlike size, images of another kind."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.attribution.calibration import Calibration
from guda_cli.diffusion.schedule import Array


def made(scores: Array, members: Array, strange: Array | None = None) -> Calibration:
    usual = np.zeros(len(scores), dtype=bool)
    return Calibration(scores, members.astype(bool), usual if strange is None else strange)


def alternating(n: int, groups: int) -> Array:
    """Image i is of group i mod `groups`."""
    return np.eye(groups, dtype=bool)[np.arange(n) % groups]


def test_p_values_by_hand() -> None:
    """Two groups, four images each: what both score on others' images has median 2.5 and deciles 1.3, 3.7."""
    members = alternating(8, 2)
    scores = np.full((8, 2), 100.0)  # their own group's: never looked at
    scores[~members] = np.repeat([1.0, 2.0, 3.0, 4.0], 2)
    found, unit = made(scores, members), 2.4 / 2.563
    np.testing.assert_allclose(found.others, [[2.5, 2.5], [unit, unit]])
    np.testing.assert_allclose(found.largest * unit + 2.5, [1, 1, 2, 2, 3, 3, 4, 4])
    # Of 8 the upper quarter are 2 of 4, above a tail that begins at 3: mean excess 1, so e^-1 of a quarter
    # are as high as 4. Twice that, as each of the 8 was looked at for one other group, and a query is for
    # two. Of 0 and more are all; rarer than 1 in 9 is not known.
    asked = np.array([[4.0, 5.0], [3.5, 0.0], [9.0, 2.0]])
    tail = [[0.5 * np.exp(-1), 0.5 * np.exp(-2)], [0.5 * np.exp(-0.5), 1.0], [0.0, 1.0]]
    np.testing.assert_allclose(found.p_values(asked), np.maximum(tail, 1 / 9))


def test_what_all_groups_score_on_an_image_is_taken_away() -> None:
    """Of images calibrated on it is the median of the groups that are not theirs, of queries that of all."""
    members = np.eye(5, dtype=bool)[[0, 1]]
    scores = np.array([[90.0, 1.0, 2.0, 4.0, 8.0], [12.0, 90.0, 11.0, 11.0, 15.0]])
    found = made(scores, members)
    none = np.nan
    want = [[none, -2.0, -1.0, 1.0, 5.0], [0.5, none, -0.5, -0.5, 3.5]]  # less 3 and 11.5
    np.testing.assert_allclose(found._of_others, want)
    np.testing.assert_allclose(found.others[0], [0.5, -2.0, -0.75, 0.25, 4.25])
    np.testing.assert_allclose(found.z(scores + 7.0), found.z(scores))
    z = found.z(np.array([[0.0, 1.0, 2.0, 3.0, 4.0]]))[0]
    np.testing.assert_allclose(z[2:], 2.563 * np.array([0.75 / 0.4, 0.75 / 1.2, -2.25 / 1.2]))
    assert np.isnan(z[:2]).all(), "of one image no deviation is known"
    few = made(scores[:, :4], members[:, :4])
    np.testing.assert_allclose(few._of_others[0], [none, 1.0, 2.0, 4.0])  # a median of four may be an owner's


def test_images_that_are_hard_without_any_group_hide_nothing() -> None:
    """What is common to all groups is three times their own: named where it is taken away, and only there."""
    rng = np.random.default_rng(5)
    members = alternating(600, 8)
    scores = 3.0 * rng.normal(size=(600, 1)) + rng.normal(size=(600, 8)) + 6.0 * members
    rates = made(scores, members).rates(0.05)
    assert rates.own > 0.95
    assert rates.wrong < 0.07
    nothing = 3.0 * rng.normal(size=(600, 1)) + rng.normal(size=(600, 8))
    assert (made(scores, members).p_values(nothing) <= 0.05).any(axis=1).mean() < 0.075


def test_the_threshold_is_where_p_reaches_the_level() -> None:
    rng = np.random.default_rng(0)
    found = made(rng.normal(size=(60, 3)), alternating(60, 3))
    middle, deviation = found.others
    edge = (found.threshold(0.05) * deviation + middle)[None]
    assert (found.p_values(edge + 1e-9) <= 0.05).all()
    assert (found.p_values(edge - 1e-6) > 0.05).all()
    with pytest.raises(ValueError, match="tail"):
        found.threshold(0.9)
    assert np.isinf(made(rng.normal(size=(10, 2)), alternating(10, 2)).threshold(0.05))


@pytest.mark.parametrize("groups", [2, 10, 60])
def test_of_images_that_owe_nothing_at_most_one_in_twenty_gets_a_verdict(groups: int) -> None:
    """Scores of an image go together, have heavy tails, and groups differ in size: the rate holds."""
    rng = np.random.default_rng(groups)
    size = np.exp(rng.normal(size=groups))
    rates = []
    for _ in range(60):
        draw = size * (rng.standard_t(3, (260, groups)) + rng.normal(size=(260, 1)))
        found = made(draw[:200], alternating(200, groups))
        rates.append((found.p_values(draw[200:]) <= 0.05).any(axis=1).mean())
    assert np.mean(rates) < 0.065


def test_a_group_ten_times_as_large_is_not_named_for_its_size() -> None:
    """Every group scores by its size on images that are not its own; each stands out for its own images."""
    rng = np.random.default_rng(1)
    size = np.array([20.0, 1.0, 1.0])
    members = alternating(600, 3)
    scores = size * (rng.normal(size=(600, 3)) + 6.0 * members)
    found = made(scores[:300], members[:300])
    named = found.p_values(scores[300:]) <= 0.05
    own = members[300:]
    for k in range(3):
        assert named[own[:, k], k].mean() > 0.95
        assert named[~own[:, k], k].mean() < 0.09  # of 200 images, at 5 % for all groups together
    assert (scores[300:].argmax(axis=1) == 0).mean() > 0.5  # by raw score the large one is mostly first
    assert (found.z(scores[300:]).argmax(axis=1) == own.argmax(axis=1)).mean() > 0.97


def test_a_group_that_every_image_is_of_gets_no_verdict() -> None:
    members = np.ones((50, 2), dtype=bool)
    members[:, 1] = np.arange(50) % 2
    found = made(np.random.default_rng(0).normal(size=(50, 2)), members)
    p = found.p_values(np.array([[9.0, 9.0]]))
    assert np.isnan(p[0, 0])
    assert p[0, 1] == pytest.approx(1 / 26)  # of the 25 images that are not of it
    assert np.isnan(found.z(np.array([[9.0, 9.0]]))[0, 0])


def test_rates_are_judged_on_images_left_out() -> None:
    rng = np.random.default_rng(2)
    members = alternating(400, 4)
    strange = np.arange(400) < 20
    scores = rng.normal(size=(400, 4)) + 8.0 * members + 50.0 * strange[:, None]
    rates = made(scores, members, strange).rates(0.05)
    assert rates.images == 400
    assert rates.wrong < 0.08
    assert 0.9 < rates.own <= 0.95, "no group is named for the twentieth that is unlike the others"
    assert rates.unlike == 0.05


def test_folds_have_some_of_every_group_in_whatever_order_they_come() -> None:
    """Five groups in turn: by position every fold would be one group, and no rate would be right."""
    members = alternating(200, 5)
    rng = np.random.default_rng(4)
    scores = np.array([9.0, 1.0, 1.0, 1.0, 1.0]) * rng.normal(size=(200, 5)) + 100.0 * members
    assert made(scores, members).rates(0.05).wrong < 0.09
    for mine in made(scores, members)._folds():
        assert members[mine].any(axis=0).all()
