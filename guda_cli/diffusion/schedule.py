"""The forward process in float64, computed from a scheduler's betas.

Time runs t = 1..T as in the papers; diffusers' index is t - 1. Arrays here have length T + 1 and are
indexed by t, with t = 0 the clean image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Schedule:
    """A variance-preserving diffusion with `betas` [T] and what its model predicts."""

    betas: Array
    prediction_type: str = "epsilon"

    @property
    def T(self) -> int:  # noqa: N802 - the papers' symbol
        """Number of diffusion steps."""
        return len(self.betas)

    @cached_property
    def abar(self) -> Array:
        """Signal variance abar_t, t = 0..T, with abar_0 = 1."""
        return np.concatenate([[1.0], np.cumprod(1.0 - self.betas)])

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
    return Schedule(betas, str(config.get("prediction_type") or "epsilon"))
