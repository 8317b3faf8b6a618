"""A query's terms do not depend on its companions, their order or the batch size."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guda_cli.diffusion import elbo, grid
from guda_cli.diffusion.grid import Grid
from guda_cli.families.pixels import UNetDenoiser
from tests.diffusion.tiny import PREDICTIONS, float_images, make_denoiser, make_schedule

POOL = float_images(6, (1, 8, 8), seed=9)
NAMES = [f"digest-{i}" for i in range(len(POOL))]


@cache
def denoiser(prediction: str, seed: int = 0) -> UNetDenoiser:
    return make_denoiser(make_schedule("squaredcos_cap_v2", 40, prediction), seed)


@cache
def steps(draws: int = 2) -> Grid:
    return grid.build(grid.spec("strata", 5, draws, 0), 40)


def score(rows: list[int], batch_size: int, prediction: str = "epsilon", seed: int = 3) -> np.ndarray:
    return elbo.image_terms(
        denoiser(prediction), POOL[rows], [NAMES[i] for i in rows], steps(), seed=seed, batch_size=batch_size
    )


@cache
def alone(row: int, prediction: str) -> np.ndarray:
    return score([row], 10, prediction)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_companions_order_and_batch_size(prediction: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=6))
    batch_size = data.draw(st.integers(1, 70))
    found = score(rows, batch_size, prediction)
    assert found.shape == (len(rows), 2, 5)
    assert found.dtype == np.float64
    for row, terms in zip(rows, found, strict=True):
        np.testing.assert_allclose(terms, alone(row, prediction)[0], rtol=1e-5)


def test_terms_depend_on_image_digest_seed_and_draw() -> None:
    base = score([0], 10)
    other_digest = elbo.image_terms(denoiser("epsilon"), POOL[:1], ["x"], steps(), seed=3, batch_size=10)
    other_image = elbo.image_terms(denoiser("epsilon"), POOL[1:2], NAMES[:1], steps(), seed=3, batch_size=10)
    for changed in (other_digest, other_image, score([0], 10, seed=4)):
        assert (np.abs(changed / base - 1) > 1e-6).all()
    assert (base[0, 0] != base[0, 1]).all()


def test_more_draws_leave_the_noise_of_the_first_alone() -> None:
    """With the same timesteps, draw 0 of one and of three draws are the same cells."""
    every = [grid.build(grid.spec("all", 0, draws, 0), 40) for draws in (1, 3)]
    few, many = (
        elbo.image_terms(denoiser("epsilon"), POOL[:2], NAMES[:2], g, seed=0, batch_size=60) for g in every
    )
    np.testing.assert_allclose(many[:, 0], few[:, 0], rtol=1e-5)


def test_global_random_state_plays_no_part() -> None:
    torch.manual_seed(0)
    one = score([2, 4], 7)
    torch.manual_seed(1)
    np.testing.assert_array_equal(score([2, 4], 7), one)


def test_no_images_no_terms() -> None:
    assert score([], 8).shape == (0, 2, 5)
