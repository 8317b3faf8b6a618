"""Races: who is put out, who leads, and how often that is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from guda_cli.attribution.race import Race
from guda_cli.diffusion.schedule import Array


def drawn(means: list[float], draws: int, seed: int = 0, noise: float = 1.0) -> Array:
    """Terms [groups, draws, 2] that share most of their noise."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(1, draws, 2)) * 5.0
    own = rng.normal(size=(len(means), draws, 2)) * noise
    return np.asarray(np.array(means)[:, None, None] / 2 + shared + own)


def run(race: Race, terms: Array) -> Race:
    """Looks at 2, 4, 8 ... draws of `terms` [G, draws, n], as long as there are some."""
    count = 2
    while count <= terms.shape[1] and not race.decided:
        race.look(terms[np.flatnonzero(race.running), :count])
        count *= 2
    return race


def test_a_pair_by_hand() -> None:
    # one stratum, two draws: differences 3 and 4, mean 3.5, error of the mean 0.5, so t = 7 with one degree
    terms = np.array([[[3.0], [4.0]], [[0.0], [0.0]]])
    p = student.sf(7.0, 1)
    level = p * 2  # the first look has half of alpha, for the one pair of a leader and another
    assert not run(Race(2, 1, 0.999 * level), terms).decided
    race = run(Race(2, 1, 1.001 * level), terms)
    assert race.leading.tolist() == [True, False]


def test_the_second_look_has_a_sixth() -> None:
    even = np.array([[[1.0], [-1.0]], [[0.0], [0.0]]])
    race = Race(2, 1, 0.05)
    race.look(even)
    assert race.running.all()
    terms = np.concatenate([even, np.array([[[9.0], [8.0]], [[0.0], [0.0]]])], axis=1)
    difference = terms[0, :, 0]
    p = student.sf(difference.mean() / (difference.std(ddof=1) / 2), 3)
    for alpha, decided in ((0.999 * 6 * p, False), (1.001 * 6 * p, True)):
        race = Race(2, 1, alpha)
        race.look(even)
        race.look(terms)
        assert race.decided is decided


def test_what_is_shared_does_not_hide_a_difference() -> None:
    race = run(Race(4, 1, 0.05), drawn([0.0, 3.0, 0.5, 0.0], 16))
    assert race.leading.tolist() == [False, True, False, False]
    assert race.looks <= 4


def test_who_is_out_is_drawn_no_more() -> None:
    race = Race(4, 1, 0.05)
    terms = drawn([5.0, 4.9, 0.0, 0.0], 8, noise=0.3)
    for count in (2, 4, 8):
        race.look(terms[np.flatnonzero(race.running), :count])
    assert race.running.tolist() == [True, True, False, False]
    assert not race.leading.any()


def test_several_places() -> None:
    race = run(Race(5, 2, 0.05), drawn([9.0, 0.0, 5.0, 0.0, 1.0], 16, noise=0.3))
    assert np.flatnonzero(race.leading).tolist() == [0, 2]


def test_a_leader_may_be_known_before_the_others() -> None:
    race = run(Race(4, 2, 0.05), drawn([50.0, 1.0, 1.0, 0.9], 16))
    assert race.leading.tolist() == [True, False, False, False]
    assert race.running.tolist() == [False, True, True, True]


@pytest.mark.parametrize(("groups", "places"), [(1, 1), (3, 3), (2, 5)])
def test_there_is_no_race_where_all_win(groups: int, places: int) -> None:
    race = Race(groups, places, 0.05)
    assert race.decided
    assert race.leading.all()


def test_equal_groups_stay_in() -> None:
    terms = drawn([1.0, 1.0, 0.0], 64)
    terms[1] = terms[0]
    race = run(Race(3, 1, 0.05), terms)
    assert race.running.tolist() == [True, True, False]


@pytest.mark.parametrize("places", [1, 3])
def test_errors_keep_to_alpha(places: int) -> None:
    """Seven groups close to one another, looked at six times: alpha 0.2 holds for all looks and pairs."""
    means, wrong, decided, races = [1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0], 0, 0, 300
    for seed in range(races):
        race = run(Race(7, places, 0.2), drawn(means, 64, seed, noise=0.3))
        wrong += bool(race.leading[places:].any()) or not (race.leading | race.running)[:places].all()
        decided += race.decided
    assert decided > races / 4
    assert wrong / races < 0.2
