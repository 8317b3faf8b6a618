"""The schedule's arrays against the formulas of the papers, written out here a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guda_cli.diffusion.schedule import Schedule, from_config
from tests.diffusion.tiny import BETA_SCHEDULES, make_schedule

LENGTHS = (2, 7, 50, 1000)


def betas_by_hand(kind: str, T: int, start: float = 0.0001, end: float = 0.02) -> list[float]:
    if kind == "linear":
        return list(np.linspace(start, end, T))
    if kind == "scaled_linear":
        return list(np.linspace(start**0.5, end**0.5, T) ** 2)
    if kind == "sigmoid":
        return [start + (end - start) / (1 + math.exp(-x)) for x in np.linspace(-6, 6, T)]

    def f(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - f((i + 1) / T) / f(i / T), 0.999) for i in range(T)]


@pytest.mark.parametrize("kind", BETA_SCHEDULES)
@pytest.mark.parametrize("T", LENGTHS)
def test_betas_are_those_of_the_named_schedule(kind: str, T: int) -> None:
    schedule = make_schedule(kind, T)
    assert schedule.T == T
    assert schedule.betas.dtype == np.float64
    np.testing.assert_allclose(schedule.betas, betas_by_hand(kind, T), rtol=2e-5, atol=1e-9)


def test_beta_range_and_trained_betas_are_read() -> None:
    config = {"num_train_timesteps": 5, "beta_schedule": "linear", "beta_start": 0.1, "beta_end": 0.5}
    np.testing.assert_allclose(from_config(config).betas, [0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-6)
    given = from_config({"num_train_timesteps": 3, "trained_betas": [0.25, 0.5, 0.125]})
    np.testing.assert_array_equal(given.betas, [0.25, 0.5, 0.125])


def test_prediction_type_defaults_to_epsilon() -> None:
    assert from_config({"num_train_timesteps": 4}).prediction_type == "epsilon"
    assert make_schedule(prediction="v_prediction").prediction_type == "v_prediction"


@pytest.mark.parametrize("kind", BETA_SCHEDULES)
@pytest.mark.parametrize("T", LENGTHS)
def test_arrays_against_running_products(kind: str, T: int) -> None:
    schedule = make_schedule(kind, T)
    for name in ("abar", "snr", "posterior_variance", "elbo_weight", "x0_weight"):
        array = getattr(schedule, name)
        assert array.shape == (T + 1,)
        assert array.dtype == np.float64, name
    abar = [1.0]
    for beta in schedule.betas.tolist():
        abar.append(abar[-1] * (1.0 - beta))
    assert schedule.snr[0] == math.inf
    assert schedule.posterior_variance[0] == schedule.posterior_variance[1] == 0.0
    for t in range(1, T + 1):
        beta = float(schedule.betas[t - 1])
        assert schedule.abar[t] == pytest.approx(abar[t], rel=1e-12)
        assert schedule.snr[t] == pytest.approx(abar[t] / (1 - abar[t]), rel=1e-9)
        variance = beta * (1 - abar[t - 1]) / (1 - abar[t])
        assert schedule.posterior_variance[t] == pytest.approx(variance, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("kind", BETA_SCHEDULES)
@pytest.mark.parametrize("T", LENGTHS)
def test_weight_has_both_closed_forms(kind: str, T: int) -> None:
    """w_t = beta_t^2 / (2 tb_t alpha_t (1 - abar_t)) = (SNR_{t-1} / SNR_t - 1) / 2."""
    schedule = make_schedule(kind, T)
    abar, w = schedule.abar, schedule.elbo_weight
    assert w[0] == 0.0
    for t in range(2, T + 1):
        beta = float(schedule.betas[t - 1])
        tb = beta * (1 - abar[t - 1]) / (1 - abar[t])
        assert w[t] == pytest.approx(beta**2 / (2 * tb * (1 - beta) * (1 - abar[t])), rel=1e-8)
        snr = [abar[s] / (1 - abar[s]) for s in (t - 1, t)]
        assert w[t] == pytest.approx((snr[0] / snr[1] - 1) / 2, rel=1e-8)
        assert schedule.x0_weight[t] == pytest.approx((snr[0] - snr[1]) / 2, rel=1e-8)


@pytest.mark.parametrize("kind", BETA_SCHEDULES)
def test_decoder_weight_uses_the_second_posterior_variance(kind: str) -> None:
    schedule = make_schedule(kind, 20)
    abar, beta2 = schedule.abar, float(schedule.betas[1])
    tb2 = beta2 * (1 - abar[1]) / (1 - abar[2])
    assert schedule.x0_weight[1] == pytest.approx(1 / (2 * tb2), rel=1e-12)
    # x0_hat - x0 = -(sigma_1 / sqrt(abar_1)) (eps_hat - eps)
    assert schedule.elbo_weight[1] == pytest.approx((1 - abar[1]) / abar[1] / (2 * tb2), rel=1e-12)
    assert schedule.decoder_constant(48) == pytest.approx(24 * math.log(2 * math.pi * tb2), rel=1e-12)


def test_prior_term_is_the_divergence_from_a_unit_normal() -> None:
    schedule = make_schedule("linear", 30)
    x0 = np.random.default_rng(0).uniform(-1, 1, (3, 2, 4, 4))
    abar = float(np.prod(1 - schedule.betas))
    mean, variance = math.sqrt(abar) * x0, 1 - abar
    per_pixel = 0.5 * (variance + mean**2 - 1 - math.log(variance))
    np.testing.assert_allclose(schedule.prior_term(x0), per_pixel.reshape(3, -1).sum(1), rtol=1e-10)


@pytest.mark.parametrize("kind", BETA_SCHEDULES)
@pytest.mark.parametrize("T", [2, 50, 1000])
def test_zero_terminal_snr(kind: str, T: int) -> None:
    schedule = make_schedule(kind, T, "v_prediction", zero_snr=True)
    assert schedule.abar[-1] == 0.0
    assert schedule.snr[-1] == 0.0
    assert schedule.elbo_weight[-1] == math.inf
    assert np.isfinite(schedule.elbo_weight[:-1]).all()
    assert np.isfinite(schedule.x0_weight).all()
    if T > 2:  # at T = 2 the decoder and the last step share tb_2
        before = schedule.abar[-2]
        assert schedule.x0_weight[-1] == pytest.approx(before / (1 - before) / 2, rel=1e-12)
    assert schedule.prior_term(np.ones((2, 1, 2, 2))).tolist() == [0.0, 0.0]


def test_schedule_of_given_betas() -> None:
    """Three steps by hand: abar = 1/2, 1/4, 1/8."""
    schedule = Schedule(np.array([0.5, 0.5, 0.5]))
    assert schedule.abar.tolist() == [1.0, 0.5, 0.25, 0.125]
    np.testing.assert_allclose(schedule.snr[1:], [1.0, 1 / 3, 1 / 7], rtol=1e-15)
    np.testing.assert_allclose(schedule.posterior_variance, [0, 0, 1 / 3, 3 / 7], rtol=1e-15)
    np.testing.assert_allclose(schedule.elbo_weight, [0, 1.5, 1.0, 2 / 3], rtol=1e-14)
