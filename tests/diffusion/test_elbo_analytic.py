"""Data from one Gaussian N(mu, s^2 I), the exact denoiser, and the ELBO they must give.

With x_t = a x0 + q eps, a^2 = abar_t, q^2 = 1 - abar_t and V = a^2 s^2 + q^2,

    E[eps | x_t] = q (x_t - a mu) / V,        E ||E[eps | x_t] - eps||^2 = dim a^2 s^2 / V.

The terms are quadratic in (x0, eps), so means over x0 = mu +- s and eps = +-1 are exact (Gauss-Hermite
quadrature with two nodes).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.diffusion import elbo, grid
from guda_cli.diffusion.denoiser import add_noise, coefficients
from guda_cli.diffusion.schedule import Schedule
from tests.diffusion.tiny import BETA_SCHEDULES, PREDICTIONS, FunctionDenoiser, make_schedule

MU, S = 0.3, 0.45


def exact_raw(schedule: Schedule, x_t: Tensor, t: Tensor) -> Tensor:
    """What the ideal network says, in the model's own prediction type."""
    a, q = coefficients(schedule, t, x_t)
    v = a**2 * S**2 + q**2
    eps = q * (x_t - a * MU) / v
    x0 = MU + a * S**2 * (x_t - a * MU) / v
    return {"epsilon": eps, "sample": x0, "v_prediction": a * eps - q * x0}[schedule.prediction_type]


def expected_terms(schedule: Schedule) -> np.ndarray:
    """E[KL_t] per pixel for t = 0..T by the formula above (x0's error at zero SNR, where it is s^2)."""
    abar = schedule.abar
    noise_error = abar * S**2 / (abar * S**2 + 1 - abar)
    with np.errstate(invalid="ignore"):
        out = schedule.elbo_weight * noise_error
    if abar[-1] == 0:
        out[-1] = schedule.snr[-2] / 2 * S**2
    return out


def exact_bound(schedule: Schedule) -> float:
    """-ELBO per pixel, from the joint Gaussian of the chain: cross entropy of p less entropy of q.

    Uses the forward kernels N(sqrt(alpha_t) x_{t-1}, beta_t) and the ancestral reverse mean
    (x_t - beta_t / sqrt(1 - abar_t) eps_hat) / sqrt(alpha_t) (Ho et al. 2020, eq. 11), not w_t.
    """

    def cross(mean_square: float, variance: float) -> float:
        return 0.5 * math.log(2 * math.pi * variance) + mean_square / (2 * variance)

    abar, total = schedule.abar, 0.0
    mean = [math.sqrt(float(a)) * MU for a in abar]
    var = [float(a) * S**2 + 1 - float(a) for a in abar]
    for t in range(1, schedule.T + 1):
        beta = float(schedule.betas[t - 1])
        alpha = 1 - beta
        total -= 0.5 * math.log(2 * math.pi * math.e * beta)  # entropy of q(x_t | x_{t-1})
        slope = (1 - beta / var[t]) / math.sqrt(alpha)
        shift = beta / var[t] * mean[t] / math.sqrt(alpha)
        bias = mean[t - 1] - slope * mean[t] - shift
        spread = var[t - 1] - 2 * slope * math.sqrt(alpha) * var[t - 1] + slope**2 * var[t]
        tb = max(t, 2)
        variance = float(schedule.betas[tb - 1]) * (1 - abar[tb - 1]) / (1 - abar[tb])
        total += cross(spread + bias**2, float(variance))
    return total + cross(var[-1] + mean[-1] ** 2, 1.0)


def quadrature(schedule: Schedule, t: int) -> float:
    """E[term t] of the code, per pixel."""
    x0 = MU + S * torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64).view(4, 1, 1, 1)
    noise = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).view(4, 1, 1, 1)
    steps = torch.full((4,), t)
    x_t = add_noise(schedule, x0, noise, steps)
    return float(elbo.terms(schedule, exact_raw(schedule, x_t, steps), x_t, x0, noise, steps).mean())


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("kind", BETA_SCHEDULES)
def test_mean_terms_and_bound(kind: str, prediction: str) -> None:
    schedule = make_schedule(kind, 60, prediction)
    found = [quadrature(schedule, t) for t in range(1, 61)]
    np.testing.assert_allclose(found, expected_terms(schedule)[1:], rtol=1e-7)
    ends = np.array([MU + S, MU - S]).reshape(2, 1, 1, 1)
    bound = schedule.prior_term(ends).mean() + sum(found) + schedule.decoder_constant(1)
    assert bound == pytest.approx(exact_bound(schedule), rel=1e-8)
    entropy = 0.5 * math.log(2 * math.pi * math.e * S**2)
    assert bound > entropy  # a bound on the data's cross entropy, which is at least its entropy


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_mean_terms_at_zero_terminal_snr(prediction: str) -> None:
    schedule = make_schedule("linear", 60, prediction, zero_snr=True)
    found = [quadrature(schedule, t) for t in range(1, 61)]
    np.testing.assert_allclose(found, expected_terms(schedule)[1:], rtol=1e-7)


@pytest.mark.parametrize("T", [500, 2000])
def test_bound_tightens_with_more_steps(T: int) -> None:
    """With the exact denoiser and finer steps the bound nears the entropy of the data.

    The decoder's variance tb_2 shrinks with the step, so the gap is that of the discretisation.
    """
    entropy = 0.5 * math.log(2 * math.pi * math.e * S**2)
    gaps = [exact_bound(make_schedule("squaredcos_cap_v2", n)) - entropy for n in (T // 5, T)]
    assert 0 < gaps[1] < gaps[0]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_full_grid_estimates_the_exact_elbo(prediction: str) -> None:
    """`image_terms` over all timesteps, in float32 with its own noise, within four standard errors."""
    schedule = make_schedule("squaredcos_cap_v2", 40, prediction)
    rng = np.random.default_rng(5)
    x0 = torch.from_numpy(MU + S * rng.standard_normal((48, 3, 8, 8))).float()
    denoiser = FunctionDenoiser(schedule, lambda x_t, t: exact_raw(schedule, x_t, t))
    all_steps = grid.build(grid.spec("all", 0, 2, 0), schedule.T)
    digests = [f"image {i}" for i in range(48)]
    terms = elbo.image_terms(denoiser, x0, digests, all_steps, seed=3, batch_size=500)
    assert terms.shape == (48, 2, 40)
    dimensions = x0[0].numel()
    each = schedule.prior_term(x0.double().numpy()) + terms.mean(1).sum(1)
    each = (each + schedule.decoder_constant(dimensions)) / dimensions
    error = each.std(ddof=1) / math.sqrt(48)
    exact = exact_bound(schedule)
    assert error < 0.01 * expected_terms(schedule)[1:].sum()
    assert abs(each.mean() - exact) < 4 * error
    per_step = terms.mean((0, 1)) / dimensions
    np.testing.assert_allclose(per_step, expected_terms(schedule)[1:], rtol=0.05)
