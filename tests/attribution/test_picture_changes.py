"""Distances of pictures against answers by hand, and the paired comparison."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.attribution.picture_changes import levels, paired, structure


def flat(value: int, channels: int = 1, size: int = 8) -> np.ndarray:
    return np.full((channels, size, size), value, dtype=np.uint8)


def test_levels() -> None:
    assert levels(flat(3), flat(255)) == 252.0
    half = flat(10)
    half[:, :4] = 20
    assert levels(flat(10), half) == 5.0


def test_structure_of_flat_pictures_is_their_brightness_alone() -> None:
    """SSIM = (2 a b + c1) / (a^2 + b^2 + c1): no variance, and the last factor is 1."""
    c1 = (0.01 * 255) ** 2
    for one, other in ((100, 100), (100, 50), (0, 255)):
        expected = 1 - (2 * one * other + c1) / (one**2 + other**2 + c1)
        assert structure(flat(one, 3), flat(other, 3)) == pytest.approx(expected, abs=1e-9)


def test_structure_falls_with_noise_and_reaches_two_at_most() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(60, 190, (1, 16, 16), dtype=np.uint8)
    noise = rng.normal(size=image.shape)
    found = [structure(image, np.clip(image + s * noise, 0, 255).astype(np.uint8)) for s in (0, 5, 20, 60)]
    assert found[0] == pytest.approx(0.0, abs=1e-12)
    assert found == sorted(found)
    assert found[-1] < 2
    assert structure(image, 255 - image) > 1  # what goes with each other goes against


def test_structure_is_symmetric() -> None:
    one, other = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    assert structure(one, other) == pytest.approx(structure(other, one), abs=1e-12)


def test_paired_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, s.e. 1 / sqrt(3), t at 2 degrees of freedom 4.303."""
    found = paired([2, 4, 6], [1, 2, 3])
    assert found[:3] == (4.0, 2.0, 2.0)
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert found.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)
    assert found.share == 1.0
    one = paired([1.0], [2.0])
    assert one == (1.0, 2.0, -1.0, None, None, 0.0)
