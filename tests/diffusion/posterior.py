"""The ELBO's terms as KL divergences between Gaussians (Ho et al. 2020, eqs. 5-10).

The second route to the numbers of `elbo.py`: slower, written from the definition, used to check it
and to give the reverse mean when sampling.
"""

from __future__ import annotations

import numpy as np

from guda_cli.diffusion.schedule import Array, Schedule


def posterior_mean(schedule: Schedule, x_t: Array, x0: Array, t: int) -> Array:
    """Mean of q(x_{t-1} | x_t, x0) (Ho et al. 2020, eq. 7), for t >= 1."""
    abar, beta = schedule.abar, schedule.betas[t - 1]
    from_x0 = np.sqrt(abar[t - 1]) * beta / (1.0 - abar[t])
    from_xt = np.sqrt(1.0 - beta) * (1.0 - abar[t - 1]) / (1.0 - abar[t])
    return np.asarray(from_x0 * x0 + from_xt * x_t)


def kl_term(schedule: Schedule, x_t: Array, x0: Array, x0_hat: Array, t: int) -> Array:
    """KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)) in nats for one batch [N, ...], t >= 2.

    Both Gaussians have variance tb_t, so the divergence is the squared distance of the means over 2 tb_t.
    """
    true = posterior_mean(schedule, x_t, x0, t)
    model = posterior_mean(schedule, x_t, x0_hat, t)
    squared = ((true - model) ** 2).reshape(len(x0), -1).sum(axis=1)
    return np.asarray(squared / (2.0 * schedule.posterior_variance[t]))
