"""The schedule's arrays against the formulas of the papers, written out here a second time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guda_cli.diffusion.schedule import BETAS, LEVELS, Schedule, flow_matching, from_config
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
    schedule = Schedule.from_betas(np.array([0.5, 0.5, 0.5]))
    assert schedule.abar.tolist() == [1.0, 0.5, 0.25, 0.125]
    np.testing.assert_allclose(schedule.snr[1:], [1.0, 1 / 3, 1 / 7], rtol=1e-15)
    np.testing.assert_allclose(schedule.posterior_variance, [0, 0, 1 / 3, 3 / 7], rtol=1e-15)
    np.testing.assert_allclose(schedule.elbo_weight, [0, 1.5, 1.0, 2 / 3], rtol=1e-14)


class TestFlow:
    """Flow matching: x_t = (1 - s) x0 + s noise; its network puts out noise - x0."""

    def test_levels_by_hand(self) -> None:
        schedule = flow_matching(4)
        np.testing.assert_allclose(schedule.signal, [1, 0.75, 0.5, 0.25, 0])
        np.testing.assert_allclose(schedule.sigma, [0, 0.25, 0.5, 0.75, 1])
        np.testing.assert_allclose(schedule.snr[1:], [9, 1, 1 / 9, 0])
        np.testing.assert_allclose(schedule.abar, [1, 0.9, 0.5, 0.1, 0])
        np.testing.assert_allclose(schedule.length, np.sqrt([1, 0.625, 0.5, 0.625, 1]))
        assert schedule.T == 4

    def test_bounds_are_those_of_the_diffusion_with_the_same_signal_to_noise(self) -> None:
        flow = flow_matching(20)
        diffusion = Schedule.from_betas(flow.betas, "epsilon")
        np.testing.assert_allclose(diffusion.abar, flow.abar, atol=1e-15)
        for name in ("posterior_variance", "x0_weight"):
            np.testing.assert_allclose(getattr(flow, name)[:-1], getattr(diffusion, name)[:-1], rtol=1e-9)
        np.testing.assert_allclose(flow.elbo_weight[:-1], diffusion.elbo_weight[:-1], rtol=1e-9)
        assert np.isinf(flow.elbo_weight[-1])  # no signal is left at s = 1: the weight is on x0 there
        assert np.isfinite(flow.x0_weight).all()


@pytest.mark.parametrize(
    "schedule", [make_schedule("linear", 7, "v_prediction"), flow_matching(7)], ids=["diffusion", "flow"]
)
def test_bytes_give_the_schedule_back(schedule: Schedule) -> None:
    again = Schedule.from_bytes(schedule.stored, schedule.to_bytes(), schedule.prediction_type)
    assert again.stored == (LEVELS if schedule.prediction_type == "flow" else BETAS)
    assert len(schedule.to_bytes()) == 8 * (16 if schedule.stored == LEVELS else 7)
    for name in ("signal", "sigma", "abar", "betas", "snr", "elbo_weight"):
        np.testing.assert_array_equal(getattr(again, name), getattr(schedule, name))


def test_a_diffusion_preserves_the_variance_exactly() -> None:
    assert (make_schedule("linear", 9).length == 1.0).all()
