"""ReTrack: redirect the group's noisy images to what a retain-only denoiser would say.

Shi et al. 2025 (arXiv 2509.13007); GUDA-U of Murata et al. 2026.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import coefficients
from guda_cli.diffusion.schedule import Schedule
from guda_cli.unlearning.neighbours import nearest
from guda_cli.unlearning.operators import ForgetBatch, Problem, Redirect


def neighbour_noise(schedule: Schedule, x_t: Tensor, t: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
    """eps_r [B, K, ...] = (x_t - sqrt(abar_t) a_r) / sqrt(1 - abar_t) and its weights w_r [B, K].

    `neighbours` [B, K, C, H, W]. The exponent -||x_t - sqrt(abar_t) a_r||^2 / (2 (1 - abar_t)) is
    about -dim/2, so the softmax is taken in log space, in float64: exponentiating it as it stands gives 0
    for every neighbour at image size.
    """
    signal, sigma = coefficients(schedule, t, neighbours)
    eps = (x_t.unsqueeze(1) - signal * neighbours) / sigma
    wide = eps.cpu() if eps.device.type == "mps" else eps  # which has no float64
    exponent = -0.5 * wide.double().square().flatten(2).sum(2)
    return eps, torch.softmax(exponent, dim=1).to(x_t.dtype).to(x_t.device)


def target_noise(
    schedule: Schedule, x_t: Tensor, t: Tensor, neighbours: Tensor, noise: Tensor, cap: float | None = None
) -> Tensor:
    """eps_bar [B, C, H, W] = sum_r w_r eps_r; `cap` limits each ||eps_r - noise||."""
    eps, weights = neighbour_noise(schedule, x_t, t, neighbours)
    if cap is not None:
        shift = eps - noise.unsqueeze(1)
        length = shift.flatten(2).norm(dim=2).clamp_min(1e-12)
        eps = noise.unsqueeze(1) + shift * (cap / length).clamp(max=1.0).view(*length.shape, 1, 1, 1)
    return torch.einsum("bk,bkchw->bchw", weights, eps)


class Retrack:
    """The operator: K nearest retain images of every image of the group, found once."""

    def __init__(self, problem: Problem) -> None:
        self.schedule, self.spec = problem.schedule, problem.spec
        flat = problem.images.flatten(1).float() / 127.5 - 1.0
        forget, retain = problem.forget.nonzero().flatten(), (~problem.forget).nonzero().flatten()
        found = retain[nearest(flat[forget], flat[retain], self.spec.neighbours)]
        self.table = torch.zeros(len(flat), found.shape[1], dtype=torch.int64)
        self.table[forget] = found
        self.images = problem.images

    def redirect(self, batch: ForgetBatch) -> Redirect:
        """eps_bar for each entry; entries below the window t_min * T get weight 0."""
        neighbours = (self.images[self.table[batch.indices]].float() / 127.5 - 1.0).to(batch.x_t.device)
        target = target_noise(self.schedule, batch.x_t, batch.t, neighbours, batch.noise, self.spec.cap)
        inside = batch.t >= self.spec.t_min * self.schedule.T
        return Redirect(target, self.spec.forget_weight * inside.float())
