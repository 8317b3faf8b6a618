"""Sampling step by step against diffusers' own schedulers, and independence of count and batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from guda_cli.diffusion import sampling
from guda_cli.diffusion.noise import generator
from guda_cli.diffusion.schedule import flow_matching
from tests.diffusion.tiny import PREDICTIONS, FunctionDenoiser, make_denoiser, make_schedule, wavy

SHAPE = (2, 4, 4)
T = 51


def scheduler_config(prediction: str, zero_snr: bool = False) -> dict[str, Any]:
    return {
        "num_train_timesteps": T,
        "beta_schedule": "linear",
        "beta_end": 0.1,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": zero_snr,
        "clip_sample": True,
    }


def denoiser_for(config: dict[str, Any]) -> FunctionDenoiser:
    from guda_cli.diffusion.schedule import from_config

    return FunctionDenoiser(from_config(config), wavy)


def run_ddim(config: dict[str, Any], ladder: list[int], spacing: int, x: Tensor) -> Tensor:
    scheduler = DDIMScheduler(**config, set_alpha_to_one=True)
    scheduler.num_inference_steps = T // spacing  # it finds the step before as t - T // steps
    for t in ladder:
        raw = wavy(x, torch.full((len(x),), t))
        x = scheduler.step(raw, t - 1, x, eta=0.0, use_clipped_model_output=True).prev_sample
    return x


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("steps", "spacing"), [(51, 1), (11, 5), (6, 10)])
def test_ddim_is_the_scheduler_of_diffusers(prediction: str, steps: int, spacing: int) -> None:
    config = scheduler_config(prediction)
    ladder = sampling.timesteps(T, steps)
    assert ladder == list(range(T, 0, -spacing))
    found = sampling.sample(denoiser_for(config), SHAPE, range(3), sampler="ddim", steps=steps, seed=4)
    start = torch.stack([torch.randn(SHAPE, generator=generator("guda.sample/1", 4, i)) for i in range(3)])
    expected = run_ddim(config, ladder, spacing, start)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected.clamp(-1, 1), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_ddim_from_zero_terminal_snr(prediction: str) -> None:
    config = scheduler_config(prediction, zero_snr=True)
    found = sampling.sample(denoiser_for(config), SHAPE, range(3), sampler="ddim", steps=11, seed=4)
    start = torch.stack([torch.randn(SHAPE, generator=generator("guda.sample/1", 4, i)) for i in range(3)])
    expected = run_ddim(config, list(range(T, 0, -5)), 5, start)
    torch.testing.assert_close(found, expected.clamp(-1, 1), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("prediction", "zero_snr"),
    [("epsilon", False), ("v_prediction", False), ("sample", False), ("v_prediction", True)],
)
def test_ddpm_is_the_scheduler_of_diffusers(prediction: str, zero_snr: bool) -> None:
    """The whole chain with the same noise: every step's mean and variance are those of `DDPMScheduler`."""
    config = scheduler_config(prediction, zero_snr)
    found = sampling.sample(denoiser_for(config), SHAPE, range(5, 6), sampler="ddpm", steps=T, seed=4)
    scheduler = DDPMScheduler(**config, variance_type="fixed_small")
    source = generator("guda.sample/1", 4, 5)
    x = torch.randn(1, *SHAPE, generator=source)
    for t in range(T, 0, -1):
        raw = wavy(x, torch.tensor([t]))
        x = scheduler.step(raw, t - 1, x, generator=source).prev_sample
    torch.testing.assert_close(found, x.clamp(-1, 1), rtol=2e-3, atol=2e-3)


def test_one_ddpm_step_has_the_posterior_variance() -> None:
    """From t = 2 of T = 2 with a constant prediction: spread of x_1 is tb_2, seen through t = 1."""
    config = {"num_train_timesteps": 2, "trained_betas": [0.3, 0.6]}
    from guda_cli.diffusion.schedule import from_config

    schedule = from_config(config)
    shown: list[Tensor] = []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        shown.append(x_t.clone())
        return (x_t - schedule.abar[int(t[0])] ** 0.5 * 0.25) / (1 - schedule.abar[int(t[0])]) ** 0.5

    sampling.sample(
        FunctionDenoiser(schedule, predict), (1, 32, 32), range(20), sampler="ddpm", steps=2, seed=0
    )
    x2, x1 = (x.double() for x in shown)
    abar1, beta2 = 0.7, 0.6
    abar2 = abar1 * (1 - beta2)
    mean = (abar1**0.5 * beta2 * 0.25 + (1 - beta2) ** 0.5 * (1 - abar1) * x2) / (1 - abar2)
    spread = ((x1 - mean) ** 2).mean()
    expected = float(DDPMScheduler(**config, variance_type="fixed_small")._get_variance(1))
    assert expected == pytest.approx(beta2 * (1 - abar1) / (1 - abar2), rel=1e-6)
    assert float(spread) == pytest.approx(expected, rel=4 * (2 / x1.numel()) ** 0.5)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_an_image_does_not_depend_on_count_or_batch(sampler: str) -> None:
    denoiser = make_denoiser(make_schedule("squaredcos_cap_v2", 30))

    def draw(indices: range, seed: int = 0) -> Tensor:
        return sampling.sample(denoiser, (1, 8, 8), indices, sampler=sampler, steps=6, seed=seed)

    six = draw(range(6))
    assert six.shape == (6, 1, 8, 8)
    assert six.abs().max() <= 1
    torch.testing.assert_close(torch.cat([draw(range(2)), draw(range(2, 6))]), six, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(draw(range(4, 5)), six[4:5], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(six[0], six[1], atol=0.05)
    assert not torch.allclose(draw(range(6), seed=1), six, atol=0.05)


def test_progress_is_told_every_step() -> None:
    told: list[int] = []
    denoiser = FunctionDenoiser(make_schedule("linear", 30), wavy)
    sampling.sample(denoiser, SHAPE, range(2), sampler="ddim", steps=7, seed=0, on_step=told.append)
    assert sum(told) == 7


@pytest.mark.parametrize(("total", "steps"), [(1000, 50), (1000, 1000), (50, 200), (999, 7), (4, 3), (50, 2)])
def test_ladder_runs_evenly_from_the_last_step_to_the_first(total: int, steps: int) -> None:
    ladder = sampling.timesteps(total, steps)
    assert (ladder[0], ladder[-1]) == (total, 1)
    assert len(ladder) == min(steps, total)
    gaps = -np.diff(ladder)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_a_single_step_starts_from_noise() -> None:
    """x_T is the noise, so the only step there is must be T."""
    assert sampling.timesteps(50, 1) == [50]


@pytest.mark.parametrize("steps", [T, 6])
def test_flow_is_drawn_by_euler_steps(steps: int) -> None:
    """x_{s'} = x_s + (s' - s) raw from s = 1 down to 0."""
    denoiser = FunctionDenoiser(flow_matching(T), wavy)
    found = sampling.sample(denoiser, SHAPE, range(2), sampler="ddim", steps=steps, seed=4, clip=False)
    x = torch.stack([torch.randn(SHAPE, generator=generator("guda.sample/1", 4, i)) for i in range(2)])
    ladder = sampling.timesteps(T, steps)
    for t, previous in zip(ladder, [*ladder[1:], 0], strict=True):
        x = x + (previous - t) / T * wavy(x, torch.full((len(x),), t))
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
