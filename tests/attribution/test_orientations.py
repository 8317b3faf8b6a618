"""Where training mirrored images, methods look at both orientations of a training image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from guda_cli.attribution.rivals.by_query import ByQuery
from guda_cli.attribution.rivals.engine import Advance, Arrays, Context, FullModel, Prepared
from guda_cli.attribution.rivals.influence import Das, Influence, Trak
from guda_cli.attribution.rivals.mucs import Mucs
from guda_cli.attribution.rivals.unlearn_query import UnlearnQuery
from guda_cli.diffusion.cells import Samples
from tests.attribution.small_denoisers import Affine, SmallDenoiser
from tests.attribution.tiny_networks import random_samples
from tests.diffusion.tiny import make_schedule

POOL = random_samples(4, (1, 2, 2))
VALUES: Mapping[str, Any] = {
    "timesteps": 3, "draws": 1, "seed": 0, "projection": 16, "ridge": 0.1, "query_rise": 1.0, "damping": 0.1,
    "mucs_steps": 2, "mucs_lr": 1e-3,
}  # fmt: skip
NOTHING = np.zeros((1, 1, 2, 2), dtype=np.uint8)


def model(flip: bool, pool: Samples = POOL) -> FullModel:
    denoiser = SmallDenoiser(Affine(), make_schedule(T=50))
    return FullModel(
        denoiser, 64, lambda: pool, lambda queries: pool.rows([0]), lambda: denoiser, lambda name: True, flip
    )


def context(flip: bool, pool: Samples = POOL) -> Context:
    members = np.eye(len(pool), 2, dtype=bool)
    return Context(VALUES, NOTHING, members, np.arange(len(pool)), pool.digests, lambda: model(flip, pool))


def test_mirror_images_come_after_the_images_with_noise_of_their_own() -> None:
    seen = model(True).seen
    assert torch.equal(seen.images[:4], POOL.images)
    assert torch.equal(seen.images[4:], POOL.images.flip(-1))
    assert len(set(seen.digests)) == 8
    assert seen.digests[:4] == POOL.digests
    assert model(False).seen is not None
    assert model(False).seen.digests == POOL.digests


def test_found_by_orientation_and_image() -> None:
    found = np.arange(8.0)
    assert model(True).orientations(found).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert model(False).orientations(found).tolist() == [list(range(8))]


@pytest.mark.parametrize("method", [Trak, Das])
def test_features_are_the_mean_of_both_orientations(method: type[Influence]) -> None:
    both = method(context(True)).prepare(lambda n: None)
    seen = model(True).seen
    each = method(context(False, seen)).prepare(lambda n: None)
    for name in each.arrays.keys() - {"ridge"}:
        stored, mirrored = np.split(each.arrays[name].astype(np.float64), 2)
        np.testing.assert_allclose(both.arrays[name], (stored + mirrored) / 2, rtol=1e-5)
    assert both.forwards == each.forwards == 2 * method(context(False)).expected_forwards()


def test_squares_of_das() -> None:
    one, two = (Das(replace(context(False), values={**VALUES, "das_squared": on})) for on in (False, True))
    prepared = one.prepare(lambda n: None).arrays
    plain, squared = (each.scores(prepared, [None])[0] for each in (one, two))  # type: ignore[list-item]
    np.testing.assert_allclose(squared, plain**2)


class Known(ByQuery):
    """Knows its scores."""

    def expected_forwards(self) -> int:
        return 0

    def prepare(self, advance: Advance) -> Prepared:
        return Prepared({}, 0.0, {})

    def one(self, prepared: Arrays, query: Samples) -> tuple[np.ndarray, float]:
        return np.array([1.0, 2.0, 3.0, 4.0, 0.0, 5.0, -1.0, 4.5])[: len(self.pool)], 1.0


def test_the_higher_of_both_scores_counts() -> None:
    assert Known(context(True)).scores({}, [None])[0].tolist() == [[1.0, 5.0, 3.0, 4.5]]  # type: ignore[list-item]
    assert Known(context(False)).scores({}, [None])[0].tolist() == [[1.0, 2.0, 3.0, 4.0]]  # type: ignore[list-item]


@pytest.mark.parametrize("method", [Mucs, UnlearnQuery])
def test_by_query_both_orientations_are_scored(method: type[ByQuery]) -> None:
    engine = method(context(True))
    prepared = engine.prepare(lambda n: None)
    assert prepared.arrays["base"].shape == (8, 1, 3)
    found, _ = engine.scores(prepared.arrays, [None])  # type: ignore[list-item]
    each, _ = engine.one(prepared.arrays, POOL.rows([0]))
    np.testing.assert_array_equal(found[0], np.maximum(each[:4], each[4:]))
