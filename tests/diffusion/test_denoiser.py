"""Conversions between noise, v and clean image, and the adapter of `UNet2DModel`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import (
    add_noise,
    coefficients,
    from_noise,
    to_noise,
    to_sample,
    training_target,
)
from guda_cli.diffusion.schedule import Schedule, flow_matching
from guda_cli.families.pixels import UNetDenoiser
from tests.diffusion.tiny import CONFIG, PREDICTIONS, double_batch, make_schedule, make_unet

T = 60


def noised(schedule: Schedule) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    t = torch.arange(1, schedule.T + 1)
    x0, noise, raw = double_batch(schedule.T)
    return x0, noise, raw, add_noise(schedule, x0, noise, t), t


def test_noise_is_added_as_in_the_definition() -> None:
    schedule = make_schedule("linear", T)
    x0, noise, _, x_t, t = noised(schedule)
    for i, step in enumerate(t.tolist()):
        abar = float(np.prod(1 - schedule.betas[:step]))
        expected = abar**0.5 * x0[i] + (1 - abar) ** 0.5 * noise[i]
        torch.testing.assert_close(x_t[i], expected, rtol=1e-12, atol=1e-12)


def test_coefficients_are_rounded_once_from_float64() -> None:
    """abar_t near 1: 1 - abar in float32 would be off by a percent at T = 1000."""
    schedule = make_schedule("linear", 1000)
    signal, sigma = coefficients(schedule, torch.tensor([1, 2]), torch.zeros(2, 1, 2, 2))
    assert signal.dtype == sigma.dtype == torch.float32
    assert signal.shape == sigma.shape == (2, 1, 1, 1)
    exact = np.sqrt(1 - schedule.abar[[1, 2]])
    np.testing.assert_allclose(sigma.flatten().double(), exact, rtol=1e-7)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_training_target_says_the_noise_and_the_image(prediction: str) -> None:
    schedule = make_schedule("linear", T, prediction)
    x0, noise, _, x_t, t = noised(schedule)
    perfect = training_target(schedule, x0, noise, t)
    torch.testing.assert_close(to_noise(schedule, perfect, x_t, t), noise, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(to_sample(schedule, perfect, x_t, t), x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(from_noise(schedule, noise, x_t, t), perfect, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_any_prediction_explains_x_t(prediction: str) -> None:
    """sqrt(abar) x0_hat + sqrt(1 - abar) eps_hat = x_t, and `from_noise` undoes `to_noise`."""
    schedule = make_schedule("squaredcos_cap_v2", T, prediction)
    _, _, raw, x_t, t = noised(schedule)
    eps, x0 = to_noise(schedule, raw, x_t, t), to_sample(schedule, raw, x_t, t)
    torch.testing.assert_close(add_noise(schedule, x0, eps, t), x_t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(from_noise(schedule, eps, x_t, t), raw, rtol=1e-7, atol=1e-7)


def test_targets_by_hand() -> None:
    """abar = 0.64: x_t = 0.8 x0 + 0.6 eps, v = 0.8 eps - 0.6 x0."""
    x0, noise = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), -2.0)
    t = torch.tensor([1])
    found = {
        kind: training_target(Schedule.from_betas(np.array([0.36]), kind), x0, noise, t).item()
        for kind in PREDICTIONS
    }
    assert found == pytest.approx({"epsilon": -2.0, "v_prediction": -1.9, "sample": 0.5})


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_pure_noise_can_be_read_at_zero_snr(prediction: str) -> None:
    schedule = make_schedule("linear", T, prediction, zero_snr=True)
    _, noise, raw, x_t, t = noised(schedule)
    torch.testing.assert_close(x_t[-1], noise[-1])
    torch.testing.assert_close(to_noise(schedule, raw, x_t, t)[-1], noise[-1])
    assert torch.isfinite(to_sample(schedule, raw, x_t, t)).all()


def test_adapter_gives_the_network_the_index_of_diffusers() -> None:
    """t = 1 is index 0."""
    unet = make_unet().eval()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = UNetDenoiser(unet, make_schedule()).predict(x, torch.tensor([1, 50]))
        expected = unet(x, torch.tensor([0, 49])).sample
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_learned_variance_is_left_out() -> None:
    unet = make_unet(in_channels=3, out_channels=6).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([4, 9])
    with torch.no_grad():
        found = UNetDenoiser(unet, make_schedule()).predict(x, t)
        both = unet(x, t - 1).sample
    assert both.shape[1] == 6
    assert found.shape == x.shape
    assert torch.equal(found, both[:, :3])
    assert not torch.equal(found, both[:, 3:])


def test_half_precision_comes_back_as_float32() -> None:
    unet = make_unet().to(torch.bfloat16).eval()
    denoiser = UNetDenoiser(unet, make_schedule())
    with torch.no_grad():
        out = denoiser.predict(torch.zeros(1, CONFIG["in_channels"], 8, 8), torch.tensor([3]))
    assert out.dtype == torch.float32


def test_flow_says_noise_and_image() -> None:
    """s = t / T and raw = noise - x0: x0 = x_t - s raw, noise = x_t + (1 - s) raw."""
    schedule = flow_matching(T)
    x0, noise, raw, x_t, t = (values[:-1] for values in noised(schedule))  # at s = 1 there is no signal
    s = (t / T).double().view(-1, 1, 1, 1)
    torch.testing.assert_close(x_t, (1 - s) * x0 + s * noise)
    torch.testing.assert_close(training_target(schedule, x0, noise, t), noise - x0)
    torch.testing.assert_close(to_sample(schedule, raw, x_t, t), x_t - s * raw)
    torch.testing.assert_close(to_noise(schedule, raw, x_t, t), x_t + (1 - s) * raw)
    eps = to_noise(schedule, raw, x_t, t)
    torch.testing.assert_close(from_noise(schedule, eps, x_t, t), raw, rtol=1e-7, atol=1e-7)
