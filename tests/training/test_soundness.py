"""Whether a model has learnt, on made-up losses and against denoisers whose losses are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guda_cli.diffusion.denoiser import add_noise, squared_error, training_target
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.training import baselines
from guda_cli.training.baselines import Looked, PixelMean
from guda_cli.training.soundness import BANDS, TrainingCheck, entries_of, judge

ONES = np.ones(4 * BANDS)
T = 40


def bands(*values: float) -> Array:
    """Losses that are the same within each band, but for a little that makes errors."""
    wobble = np.tile([1.001, 0.999, 1.001, 0.999], BANDS)
    return np.repeat(values, 4) * wobble


@pytest.mark.parametrize(
    ("trained", "verdict", "why"),
    [
        ((0.5, 0.5, 0.5, 0.5), "passed", "its loss is 50% under that of the mean image"),
        ((0.9, 0.9, 0.9, 0.9), "passed", "10% under"),
        ((0.97, 0.97, 0.97, 0.97), "failed", "3% under that of the mean image: it draws noise"),
        ((1.2, 1.2, 1.2, 1.2), "failed", "20% over"),
        ((2.5, 2.5, 2.5, 2.5), "failed", "no better than before the first step"),
        # the mean's loss is 1, the untrained network's 2: 0.5 % of that may be lost to the mean
        ((0.5, 0.5, 0.5, 1.009), "passed", "under"),
        ((0.5, 0.5, 0.5, 1.02), "doubtful", "but not at t 31 to 40"),
        ((0.5, 1.5, 0.5, 1.2), "doubtful", "but not at t 11 to 20, t 31 to 40"),
    ],
)
def test_verdicts(trained: tuple[float, ...], verdict: str, why: str) -> None:
    found = judge(T, bands(*trained), 2 * ONES, ONES)
    assert found.verdict == verdict
    assert why in found.why
    assert TrainingCheck.of(found.to_dict()) == found


def test_bands_hold_means_and_errors() -> None:
    trained = np.arange(16.0)
    band = judge(T, trained, ONES * 20, ONES * 16).bands[1]
    assert (band.first, band.last) == (11, 20)
    assert (band.trained, band.untrained, band.mean) == (5.5, 20.0, 16.0)
    assert band.gain == pytest.approx(10.5)
    assert band.gain_se == pytest.approx(np.sqrt(5 / 3) / 2)  # of 4, 5, 6, 7


def test_a_check_takes_a_tenth_of_the_training_at_most() -> None:
    assert entries_of(0) == 8
    assert entries_of(3 * 100 * 32) == 120  # two models, four bands: 960 of 9,600
    assert entries_of(1e9) == 128


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_the_mean_is_the_best_guess_for_independent_pixels(prediction: str) -> None:
    """Its loss is that of the posterior mean, whose error in x0 is v sigma^2 / (s^2 v + sigma^2) a pixel."""
    betas = np.linspace(1e-3, 0.2, T)
    made = Schedule.from_betas(betas)
    schedule = Schedule.from_levels(made.signal, made.sigma, "flow") if prediction == "flow" else None
    schedule = schedule or Schedule.from_betas(betas, prediction)
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.2, 0.5, 1.0, 2.0]).view(1, 1, 2, 2)
    x0 = 0.3 + scale * torch.randn(20_000, 1, 2, 2, generator=generator)
    mean = PixelMean(x0)
    t = torch.full((len(x0),), 12)
    noise = torch.randn(x0.shape, generator=generator)
    x_t = add_noise(schedule, x0, noise, t)
    error = squared_error(mean.predict(schedule, x_t, t), training_target(schedule, x0, noise, t)).mean()
    s, sigma, v = float(schedule.signal[12]), float(schedule.sigma[12]), scale.square()
    wrong = (v * sigma**2 / (s**2 * v + sigma**2)).mean()  # mean squared error of x0
    a, b = schedule.prediction.pair(s, sigma)
    expected = (a - b * s / sigma) ** 2 * wrong  # noise is (x_t - s x0) / sigma
    assert float(error) == pytest.approx(float(expected), rel=0.03)


def test_all_models_are_looked_at_in_the_same_places() -> None:
    schedule = Schedule.from_betas(np.linspace(1e-3, 0.2, T))

    class Constant:
        """Says no noise: its loss is the mean square of the noise itself."""

        device = torch.device("cpu")

        def __init__(self) -> None:
            self.schedule = schedule

        def predict(self, x_t: torch.Tensor, t: torch.Tensor, cond: object = None) -> torch.Tensor:
            return torch.zeros_like(x_t)

    looked = Looked(torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8), schedule, entries=8)
    losses = looked.losses(Constant(), batch=3)
    np.testing.assert_allclose(losses, looked.noise.square().flatten(1).mean(1).numpy(), rtol=1e-6)
    assert looked.t.tolist() == sorted(looked.t.tolist())
    assert looked.t[0] == 1
    assert looked.t[-1] == T - 1  # 31 * 40 // 32 + 1


@pytest.mark.parametrize("shape", [(50, 3, 8, 8), (50, 1, 8, 8), (7, 4, 6, 10)])
@pytest.mark.parametrize("held", [1, 5000])
def test_statistics_of_many_pixels_are_taken_part_by_part(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], held: int
) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = PixelMean(images)
    monkeypatch.setattr(baselines, "HELD", held)
    parts = PixelMean(images)
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.variance, whole.variance, rtol=1e-12, atol=1e-12)
