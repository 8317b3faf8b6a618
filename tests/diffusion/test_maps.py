"""Per-pixel maps add up to the scores they explain."""

from __future__ import annotations

import numpy as np
import pytest

from guda_cli.attribution.delta_elbo import delta_elbo, estimate
from guda_cli.diffusion import elbo, grid, weighting
from tests.diffusion.tiny import PREDICTIONS, float_images, make_denoiser, make_schedule


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ["elbo", "min-snr:5", "band:3-9"])
def test_map_sums_to_the_weighted_estimate(prediction: str, name: str) -> None:
    schedule = make_schedule("squaredcos_cap_v2", 30, prediction)
    denoiser = make_denoiser(schedule, in_channels=3, out_channels=3)
    x0 = float_images(1, (3, 8, 8))
    strata = grid.build(grid.spec("strata", 7, 2, 1), 30)
    v = weighting.parse(name).multiplier(schedule)
    terms = elbo.image_terms(denoiser, x0, ["q"], strata, seed=2, batch_size=5)
    pixels = elbo.weighted_map(denoiser, x0[0], "q", strata, v, seed=2, batch_size=4)
    assert pixels.shape == (8, 8)
    assert pixels.sum() == pytest.approx(float(estimate(terms, strata, v).value[0]), rel=1e-5)
    assert pixels.std() > 0


def test_map_of_the_difference_sums_to_the_score() -> None:
    schedule = make_schedule("linear", 20, "v_prediction", zero_snr=True)
    full, without = make_denoiser(schedule, 0), make_denoiser(schedule, 1)
    x0 = float_images(1)
    steps = grid.build(grid.spec("all", 0, 2, 0), 20)
    v = weighting.parse("elbo").multiplier(schedule)
    terms = [elbo.image_terms(d, x0, ["q"], steps, seed=0, batch_size=64) for d in (full, without)]
    maps = [elbo.weighted_map(d, x0[0], "q", steps, v, seed=0, batch_size=64) for d in (full, without)]
    score = delta_elbo(terms[0], terms[1], steps, v).value[0]
    assert np.isfinite(score)
    assert (maps[1] - maps[0]).sum() == pytest.approx(float(score), rel=1e-4)
