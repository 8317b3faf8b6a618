"""Weights of patches against softmaxes written out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.attribution.rivals.engine import Context, FullModel
from guda_cli.attribution.rivals.nda import Nda, patch_weights, scales, usual_patch
from guda_cli.diffusion.cells import Samples
from tests.attribution.small_denoisers import Affine, SmallDenoiser
from tests.attribution.tiny_networks import kinds, random_samples
from tests.diffusion.tiny import make_schedule

NOTHING = np.zeros((1, 1, 2, 2), dtype=np.uint8)
VALUES: Mapping[str, Any] = {"timesteps": 3, "draws": 2, "seed": 0, "nda_patch": None, "nda_t_max": 0.5}


def engine(pool: Samples, queries: Samples, flip: bool = False, **values: Any) -> Nda:
    denoiser = SmallDenoiser(Affine(), make_schedule(T=50))
    model = FullModel(
        denoiser, 64, lambda: pool, lambda found: queries, lambda: denoiser, lambda name: True, flip
    )
    members, rows = np.eye(len(pool), 2, dtype=bool), np.arange(len(pool))
    return Nda(Context({**VALUES, **values}, NOTHING, members, rows, pool.digests, lambda: model))


def scored(made: Nda, count: int) -> np.ndarray:
    found, cost = made.scores(made.prepare(lambda n: None).arrays, [None] * count)  # type: ignore[list-item]
    assert cost == made.expected_forwards() == 0
    return found


def test_single_pixels_by_hand() -> None:
    """Patches of one pixel meet all pixels: x = 1, candidates 1, 0 of one image and 0, 0 of the other."""
    x_t = torch.tensor([[[1.0, 1.0]]])
    training = torch.tensor([[[[2.0, 0.0]]], [[[0.0, 0.0]]]])
    near, far = math.exp(0.0), math.exp(-1 / (2 * 0.5**2))
    total = near + 3 * far
    found = patch_weights(x_t, training, 0.5, 0.5, 1)
    np.testing.assert_allclose(found, [(near + far) / total, 2 * far / total], rtol=1e-6)


@pytest.mark.parametrize("memory", [1, 1 << 20])
def test_patches_over_a_border_meet_those_that_reach_as_far(memory: int) -> None:
    """The plain way: pad with a huge number, all patches against all others."""
    draws = torch.Generator().manual_seed(0)
    x_t, training = torch.randn(2, 4, 5, generator=draws), torch.randn(3, 2, 4, 5, generator=draws)

    def patches(image: Tensor, scale: float) -> Tensor:
        padded = torch.nn.functional.pad(scale * image.double(), (1, 1, 1, 1), value=1e6)
        return torch.stack([padded[:, i : i + 3, j : j + 3].flatten() for i in range(4) for j in range(5)])

    theirs = torch.cat([patches(image, 0.8) for image in training])
    apart = torch.cdist(patches(x_t, 1.0), theirs, compute_mode="donot_use_mm_for_euclid_dist").square()
    weights = (-apart / (2 * 0.6**2)).softmax(1).view(20, 3, 20)
    expected = weights.sum((0, 2)) / 20
    found = patch_weights(x_t, training, 0.8, 0.6, 3, memory)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert float(found.sum()) == pytest.approx(1.0)


def test_half_the_size_keeps_the_noise() -> None:
    [whole] = scales(torch.zeros(1, 1, 4, 9))
    assert whole.shape == (1, 1, 4, 9)
    noise = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    _, half = scales(noise)
    assert half.shape == (200, 1, 4, 4)
    assert float(half.std()) == pytest.approx(1.0, abs=0.05)
    assert [usual_patch(side) for side in (8, 16, 28, 32, 64)] == [3, 3, 7, 7, 13]


def test_an_image_of_the_pool_is_owed_to_itself_and_then_to_its_kind() -> None:
    pool = kinds()
    found = scored(engine(pool, pool.rows(range(4)), nda_t_max=0.3, nda_patch=7), 4)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    same = np.equal.outer(np.arange(4) % 2, np.arange(len(pool)) % 2)
    assert found.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert found[same].mean() > found[~same].mean()


def test_company_and_order_play_no_part() -> None:
    pool, queries = random_samples(5), random_samples(3, seed=1)
    whole = scored(engine(pool, queries), 3)
    order = [3, 0, 4, 1, 2]
    again = scored(engine(pool.rows(order), queries.rows([2])), 1)
    np.testing.assert_allclose(again[0], whole[2, order], rtol=1e-4)


def test_mirror_images_add_to_an_images_weight() -> None:
    pool = random_samples(4)
    mirrored = Samples(pool.images.flip(-1), pool.digests)
    both = scored(engine(pool, pool, flip=True), 4)
    each = scored(engine(Samples(torch.cat([pool.images, mirrored.images]), tuple("abcdefgh")), pool), 4)
    np.testing.assert_allclose(both, each[:, :4] + each[:, 4:], rtol=1e-5)
