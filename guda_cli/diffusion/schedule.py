"""The forward process in float64: how much signal and how much noise there is at each time.

Time runs t = 1..T as in the papers; diffusers' index is t - 1. Arrays here have length T + 1 and are
indexed by t, with t = 0 the clean image. x_t = signal_t x0 + sigma_t noise, whatever the process:
variance-preserving diffusion has signal^2 + sigma^2 = 1, flow matching signal + sigma = 1. Divided by
sqrt(signal^2 + sigma^2), any x_t is one of a variance-preserving process with the same signal-to-noise ratio:
so every bound and weight is worked out from `abar`, once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BETAS, LEVELS = "betas", "levels"
"""Names of the stored output that holds a schedule: its betas, or signal and sigma."""


@dataclass(frozen=True)
class Prediction:
    """What a network puts out: raw = a x0 + b noise, with (a, b) = `pair`(signal, sigma)."""

    name: str
    pair: Callable[[Any, Any], tuple[Any, Any]]
    """Of arrays or tensors alike; plain numbers where they are the same at every level."""


# The names are diffusers' own (Salimans & Ho 2022 for v; Liu et al. 2023, Lipman et al. 2023 for flow).
PREDICTIONS = {
    row.name: row
    for row in (
        Prediction("epsilon", lambda signal, sigma: (0.0, 1.0)),
        Prediction("v_prediction", lambda signal, sigma: (-sigma, signal)),
        Prediction("sample", lambda signal, sigma: (1.0, 0.0)),
        Prediction("flow", lambda signal, sigma: (-1.0, 1.0)),
    )
}


@dataclass(frozen=True, eq=False)
class Schedule:
    """A forward process and what its model predicts (a name in PREDICTIONS).

    `signal` and `sigma` [T + 1] as at the top; `abar` [T + 1] is the signal's share of the variance. `betas`
    [T] are its steps. Made by `from_betas` or `from_levels`.
    """

    signal: Array
    sigma: Array
    abar: Array
    betas: Array
    prediction_type: str = "epsilon"
    stored: str = BETAS
    """Under which name `to_bytes` is kept: BETAS or LEVELS."""

    @staticmethod
    def from_betas(betas: Array, prediction_type: str = "epsilon") -> Schedule:
        """The variance-preserving diffusion with these `betas` [T] (Ho et al. 2020)."""
        abar = np.concatenate([[1.0], np.cumprod(1.0 - betas)])
        return Schedule(np.sqrt(abar), np.sqrt(1.0 - abar), abar, betas, prediction_type)

    @staticmethod
    def from_levels(signal: Array, sigma: Array, prediction_type: str = "flow") -> Schedule:
        """The process with these `signal` and `sigma` [T + 1], of which the first are 1 and 0."""
        abar = signal**2 / (signal**2 + sigma**2)
        return Schedule(signal, sigma, abar, 1.0 - abar[1:] / abar[:-1], prediction_type, LEVELS)

    @property
    def prediction(self) -> Prediction:
        """What the model puts out."""
        return PREDICTIONS[self.prediction_type]

    @property
    def T(self) -> int:  # noqa: N802 - the papers' symbol
        """Number of diffusion steps."""
        return len(self.betas)

    @cached_property
    def on_devices(self) -> dict[Any, Any]:
        """What `denoiser` keeps of it where networks run, by type and device."""
        return {}

    @cached_property
    def length(self) -> Array:
        """sqrt(signal^2 + sigma^2), t = 0..T: exactly 1 where the process preserves the variance."""
        if self.stored == BETAS:
            return np.ones(self.T + 1)
        return np.sqrt(self.signal**2 + self.sigma**2)

    @cached_property
    def snr(self) -> Array:
        """SNR_t = abar_t / (1 - abar_t), t = 0..T; infinite at 0."""
        with np.errstate(divide="ignore"):
            return self.abar / (1.0 - self.abar)

    @cached_property
    def posterior_variance(self) -> Array:
        """tb_t = beta_t (1 - abar_{t-1}) / (1 - abar_t), t = 0..T (tb_0 and tb_1 are 0)."""
        abar = self.abar
        return np.concatenate([[0.0], self.betas * (1.0 - abar[:-1]) / (1.0 - abar[1:])])

    @cached_property
    def elbo_weight(self) -> Array:
        """w_t of the noise error in the t-th term of -ELBO (Ho et al. 2020, eq. 12), t = 0..T.

        t = 1 is the Gaussian decoder term with variance tb_2. w_0 is 0 (no such term) and w_T is
        infinite at zero terminal SNR, where `x0_weight` takes over.
        """
        snr, abar = self.snr, self.abar
        w = np.zeros(self.T + 1)
        with np.errstate(divide="ignore"):
            w[2:] = (snr[1:-1] / snr[2:] - 1.0) / 2.0
        w[1] = (1.0 - abar[1]) / abar[1] / (2.0 * self.posterior_variance[2])
        return w

    @cached_property
    def x0_weight(self) -> Array:
        """The same weights on ||x0 - x0_hat||^2: (SNR_{t-1} - SNR_t) / 2, finite for every t >= 1."""
        snr = self.snr
        w = np.zeros(self.T + 1)
        w[2:] = (snr[1:-1] - snr[2:]) / 2.0
        w[1] = 1.0 / (2.0 * self.posterior_variance[2])
        return w

    def decoder_constant(self, dimensions: int) -> float:
        """The part of the t = 1 term that no model changes: (dim / 2) log(2 pi tb_2), in nats."""
        return 0.5 * dimensions * float(np.log(2.0 * np.pi * self.posterior_variance[2]))

    def prior_term(self, x0: Array) -> Array:
        """KL(q(x_T | x0) || N(0, I)) in nats for x0 [N, ...]."""
        abar = self.abar[-1]
        flat = x0.reshape(len(x0), -1)
        return np.asarray(0.5 * (abar * flat**2 - abar - np.log1p(-abar)).sum(axis=1))

    def to_bytes(self) -> bytes:
        """The betas, or signal and sigma one after the other, as little-endian float64."""
        values = self.betas if self.stored == BETAS else np.concatenate([self.signal, self.sigma])
        return np.ascontiguousarray(values, dtype="<f8").tobytes()

    @staticmethod
    def from_bytes(stored: str, data: bytes, prediction_type: str) -> Schedule:
        """The inverse of `to_bytes`; `stored` is the name that the data were kept under."""
        values = np.frombuffer(data, dtype="<f8").copy()
        if stored == BETAS:
            return Schedule.from_betas(values, prediction_type)
        signal, sigma = np.split(values, 2)
        return Schedule.from_levels(signal, sigma, prediction_type)


def from_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a diffusers scheduler configuration (any `beta_schedule` of `DDPMScheduler`)."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    names = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
        "prediction_type",
    )
    scheduler = DDPMScheduler(**{k: config[k] for k in names if config.get(k) is not None})
    betas = scheduler.betas.double().numpy()
    return Schedule.from_betas(betas, str(config.get("prediction_type") or "epsilon"))


def flow_matching(T: int) -> Schedule:
    """Rectified flow on even times: x_t = (1 - s) x0 + s noise with s = t / T, raw = noise - x0.

    Unshifted, so that scores do not depend on what a sampler prefers.
    """
    s = np.arange(T + 1) / T
    return Schedule.from_levels(1.0 - s, s)
