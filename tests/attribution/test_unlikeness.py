"""Distances from the training images: by hand, their rate of error, more features than images."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.attribution import unlikeness
from guda_cli.attribution.unlikeness import OWN_MEAN, WIDTH, Space
from guda_cli.diffusion.schedule import Array


def groups(n: int, count: int) -> Array:
    """Image i is of group i mod `count`."""
    return np.eye(count, dtype=bool)[np.arange(n) % count]


def test_p_values_by_hand() -> None:
    known = np.array([3.0, 1.0, 2.0, 4.0])
    found = unlikeness.p_values(known, np.array([0.0, 2.0, 2.5, 4.0, 9.0]))
    np.testing.assert_allclose(found, [1.0, 0.8, 0.6, 0.4, 0.2])  # (1 + those as far) / 5


def test_a_distance_is_from_the_nearest_groups_mean_in_common_deviations() -> None:
    """Two groups at (+-10, 0), within which the first feature has deviation 1 and the second 3."""
    rng = np.random.default_rng(0)
    members = groups(4000, 2)
    centres = np.where(members[:, :1], 10.0, -10.0) * np.array([1.0, 0.0])
    space = unlikeness.fit(centres + rng.normal(size=(4000, 2)) * np.array([1.0, 3.0]), members)
    asked = np.array([[10.0, 0.0], [-10.0, 0.0], [10.0, 6.0], [-7.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(space.distances(asked), [0.0, 0.0, 2.0, 3.0, 10.0], atol=0.35)


def test_small_groups_share_a_mean() -> None:
    rng = np.random.default_rng(1)
    members = groups(8 * (OWN_MEAN - 1), 8)
    assert len(unlikeness.fit(rng.normal(size=(len(members), 3)), members).means) == 1
    members = np.concatenate([members, groups(8, 8)[7:]])
    assert len(unlikeness.fit(rng.normal(size=(len(members), 3)), members).means) == 2


@pytest.mark.parametrize("width", [5, 300])
def test_of_images_like_them_as_many_are_called_unlike_as_asked_for(width: int) -> None:
    """Also where features outnumber images; images of another kind are known."""
    rng = np.random.default_rng(width)
    mixing = rng.normal(size=(width, width))
    members = groups(200, 4)
    usual = np.concatenate([rng.normal(size=(200, width)), rng.normal(size=(600, width))]) @ mixing
    known = unlikeness.left_out(usual[:200], members)
    space = unlikeness.fit(usual[:200], members)
    p = unlikeness.p_values(known, space.distances(usual[200:]))
    assert (0.02 if width < 200 else 0.005) < (p <= 0.05).mean() < 0.09
    other = 3.0 * rng.normal(size=(50, width)) @ rng.normal(size=(width, width))
    assert (unlikeness.p_values(known, space.distances(other)) <= 0.05).mean() > 0.9


def test_more_features_than_can_be_whitened_are_projected_the_same_way_each_time() -> None:
    rng = np.random.default_rng(2)
    features, members = rng.normal(size=(60, 2 * WIDTH)), groups(60, 2)
    space = unlikeness.fit(features, members)
    assert space.whitening.shape == (WIDTH, WIDTH)
    again = Space.of({name: np.array(value) for name, value in space.arrays.items()})
    np.testing.assert_array_equal(again.distances(features), space.distances(features))


def test_a_feature_that_never_changes_does_no_harm() -> None:
    rng = np.random.default_rng(3)
    features = np.concatenate([rng.normal(size=(80, 3)), np.full((80, 1), 5.0)], axis=1)
    found = unlikeness.left_out(features, groups(80, 2))
    assert np.isfinite(found).all()
    assert found.max() < 10
