"""Distances between models: by hand, and of Gaussians whose divergence is known."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.attribution.distance import FULL, UNLEARNED, between, compare
from guda_cli.diffusion.schedule import Array

MEANS = {FULL: 2.0, UNLEARNED: 0.5, "r2": 0.1, "r3": -0.1}


def gaussians(n: int) -> dict[str, dict[str, Array]]:
    """Losses under N(mean, 1) of images drawn from each, all from the same noise."""
    noise = np.random.default_rng(0).standard_normal(n)
    drawn = {source: noise + mean for source, mean in MEANS.items()}
    return {model: {of: 0.5 * (x - mean) ** 2 for of, x in drawn.items()} for model, mean in MEANS.items()}


def test_between_by_hand() -> None:
    """(5 - 1) + (3 - 2) = 5, (2 - 2) + (0 - 1) = -1."""
    losses = {
        "a": {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 0.0])},
        "b": {"a": np.array([5.0, 2.0]), "b": np.array([2.0, 1.0])},
    }
    assert between(losses, "a", "b").tolist() == between(losses, "b", "a").tolist() == [5.0, -1.0]
    assert between(losses, "a", "a").tolist() == [0.0, 0.0]


def test_gaussians_are_their_squared_difference_apart() -> None:
    """KL is half of it each way, and shared noise leaves no error. 0.16 and 0.36 are 0.26 in the mean."""
    found = compare(gaussians(50), ["r2", "r3"])
    assert found.unlearned.value == pytest.approx(0.26)
    assert found.full.value == pytest.approx((1.9**2 + 2.1**2) / 2)
    assert found.retrained is not None
    assert found.retrained.value == pytest.approx(0.04)
    assert found.full.se == pytest.approx(0.0, abs=1e-12)
    assert found.left is not None
    assert found.left.value == pytest.approx((0.26 - 0.04) / (4.01 - 0.04))


def test_one_seed_knows_no_chance() -> None:
    found = compare(gaussians(50), ["r2"])
    assert found.unlearned.value == pytest.approx(0.16)
    assert found.retrained is None
    assert found.left is None


def test_errors_are_those_over_images() -> None:
    losses = gaussians(8)
    losses["r2"][FULL] = losses["r2"][FULL] + np.array([0.0, 2.0] * 4)
    found = compare(losses, ["r2"])
    assert found.full.se == pytest.approx(np.sqrt(8 / 7) / np.sqrt(8))
    assert found.unlearned.se == pytest.approx(0.0, abs=1e-12)


def test_what_cannot_be_told_from_chance_leaves_no_share() -> None:
    losses = gaussians(50)
    losses[FULL] = losses["r3"]
    for model in losses.values():
        model[FULL] = model["r3"]
    assert compare(losses, ["r2", "r3"]).left is None
