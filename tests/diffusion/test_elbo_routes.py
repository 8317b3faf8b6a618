"""ELBO terms by weighted noise error and by KL divergence between Gaussians agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guda_cli.diffusion import elbo
from guda_cli.diffusion.denoiser import add_noise
from guda_cli.diffusion.schedule import Schedule
from tests.diffusion import posterior
from tests.diffusion.tiny import BETA_SCHEDULES, PREDICTIONS, double_batch, make_schedule

Array = np.ndarray


def clean_image(schedule: Schedule, raw: Array, x_t: Array, t: int) -> Array:
    """x0_hat from a raw prediction (Salimans & Ho 2022), written without the code under test."""
    abar = schedule.abar[t]
    if schedule.prediction_type == "epsilon":
        return (x_t - np.sqrt(1 - abar) * raw) / np.sqrt(abar)
    if schedule.prediction_type == "v_prediction":
        return np.sqrt(abar) * x_t - np.sqrt(1 - abar) * raw
    return raw


def both_routes(schedule: Schedule) -> tuple[Array, Array]:
    steps = torch.arange(2, schedule.T + 1)
    x0, noise, raw = double_batch(len(steps))
    x_t = add_noise(schedule, x0, noise, steps)
    direct = elbo.terms(schedule, raw, x_t, x0, noise, steps)
    assert direct.dtype == torch.float64
    divergences = [
        posterior.kl_term(
            schedule,
            x_t[i : i + 1].numpy(),
            x0[i : i + 1].numpy(),
            clean_image(schedule, raw[i : i + 1].numpy(), x_t[i : i + 1].numpy(), t),
            t,
        )[0]
        for i, t in enumerate(steps.tolist())
    ]
    return direct.numpy(), np.array(divergences)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("kind", BETA_SCHEDULES)
@pytest.mark.parametrize("T", [3, 200])
def test_routes_agree_at_every_step(kind: str, T: int, prediction: str) -> None:
    weighted, divergence = both_routes(make_schedule(kind, T, prediction))
    assert (divergence > 0).all()
    np.testing.assert_allclose(weighted, divergence, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("kind", BETA_SCHEDULES)
def test_routes_agree_at_zero_terminal_snr(kind: str, prediction: str) -> None:
    schedule = make_schedule(kind, 200, prediction, zero_snr=True)
    weighted, divergence = both_routes(schedule)
    assert np.isfinite(weighted).all()
    assert weighted[-1] > 0
    np.testing.assert_allclose(weighted, divergence, rtol=1e-5)


def test_divergence_is_that_of_two_gaussians() -> None:
    """`kl_term` and `posterior_mean` against Bayes' rule on the joint Gaussian of (x_{t-1}, x_t)."""
    schedule = make_schedule("linear", 40)
    rng = np.random.default_rng(1)
    for t in (2, 17, 40):
        x_t, x0, x0_hat = rng.standard_normal((3, 1, 1, 2, 2))
        alpha = 1 - schedule.betas[t - 1]
        prior_mean, prior_var = np.sqrt(schedule.abar[t - 1]) * x0, 1 - schedule.abar[t - 1]
        gain = np.sqrt(alpha) * prior_var / (alpha * prior_var + 1 - alpha)
        mean = prior_mean + gain * (x_t - np.sqrt(alpha) * prior_mean)
        variance = prior_var * (1 - gain * np.sqrt(alpha))
        np.testing.assert_allclose(posterior.posterior_mean(schedule, x_t, x0, t), mean, rtol=1e-9)
        model = mean + np.sqrt(schedule.abar[t - 1]) * (1 - gain * np.sqrt(alpha)) * (x0_hat - x0)
        expected = ((mean - model) ** 2).sum() / (2 * variance)
        assert posterior.kl_term(schedule, x_t, x0, x0_hat, t)[0] == pytest.approx(expected, rel=1e-8)


def test_first_step_is_the_gaussian_decoder() -> None:
    """At t = 1: -log N(x0; x0_hat, tb_2), together with `decoder_constant`."""
    for prediction in PREDICTIONS:
        schedule = make_schedule("scaled_linear", 30, prediction)
        x0, noise, raw = double_batch(2)
        t = torch.ones(2, dtype=torch.int64)
        x_t = add_noise(schedule, x0, noise, t)
        x0_hat = clean_image(schedule, raw.numpy(), x_t.numpy(), 1)
        tb2 = schedule.posterior_variance[2]
        log_density = -0.5 * (x0.numpy() - x0_hat) ** 2 / tb2 - 0.5 * np.log(2 * np.pi * tb2)
        ours = elbo.terms(schedule, raw, x_t, x0, noise, t).numpy() + schedule.decoder_constant(x0[0].numel())
        np.testing.assert_allclose(ours, -log_density.reshape(2, -1).sum(1), rtol=1e-9)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_maps_sum_to_terms(zero_snr: bool) -> None:
    schedule = make_schedule("linear", 12, "v_prediction", zero_snr)
    t = torch.arange(1, 13)
    x0, noise, raw = double_batch(12)
    x_t = add_noise(schedule, x0, noise, t)
    maps = elbo.term_maps(schedule, raw, x_t, x0, noise, t)
    assert maps.shape == x0.shape
    assert (maps >= 0).all()
    total = elbo.terms(schedule, raw, x_t, x0, noise, t)
    np.testing.assert_allclose(maps.flatten(1).sum(1), total, rtol=1e-12)
