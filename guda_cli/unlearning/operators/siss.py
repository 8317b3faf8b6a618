"""SISS: descent on a retain image and ascent on the group's from one latent, drawn from a mixture.

Alberti et al. 2025 (arXiv 2503.01034, eq. 9 and section 4). There, x is any training image, and the
group's share of E_x is taken off again by the ascent term; here the stream keeps the two apart, x is a
retain image, and only the ascent beyond that (the superfactor) is left.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import (
    Denoiser,
    add_noise,
    coefficients,
    squared_error,
    to_x0,
    training_target,
)
from guda_cli.diffusion.transfer import sent
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.base import ForgetBatch, Problem, uniform
from guda_cli.unlearning.operators.two_gradients import TwoGradients


def importance(log_ratio: Tensor, mixture: float) -> tuple[Tensor, Tensor]:
    """q(m|x) / q_mix(m) and q(m|a) / q_mix(m) [F] from log q(m|a) - log q(m|x), in float64.

    q_mix = (1 - lambda) q(.|x) + lambda q(.|a), lambda = `mixture`; exponents of the size of an image never
    stand alone.
    """
    share = torch.tensor(mixture, dtype=torch.float64, device=log_ratio.device)
    whole = torch.logaddexp(torch.log1p(-share), share.log() + log_ratio)
    return torch.exp(-whole), torch.exp(log_ratio - whole)


class Siss(TwoGradients):
    """Kept: retain entries and w_x ||eps_x - eps||^2; ascended: w_a ||eps_a - eps||^2.

    The ascent has weight min(`forget_weight`, `superfactor` ||g_kept|| / ||g_ascended||): its gradient is
    never longer than that share of the other's.
    """

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        super().__init__(problem, parameters=parameters)
        self.retain = (~problem.forget).nonzero().flatten()

    def _partner(self, batch: ForgetBatch) -> Tensor:
        """The retain image x [F, C, H, W] that each entry of the group is paired with, turned alike."""
        drawn = uniform("siss.partner", self.problem, batch)
        rows = self.retain[(drawn * len(self.retain)).long()]
        return batch.turned(to_x0(sent(self.problem.images[rows], batch.x0.device)))

    def shown(self, batch: ForgetBatch) -> ForgetBatch:
        """Latents m_t of the mixture: with probability lambda the group's own, else x with the same noise."""
        own = uniform("siss.coin", self.problem, batch) < self.problem.spec.mixture
        other = add_noise(self.problem.schedule, self._partner(batch), batch.noise, batch.t)
        x_t = torch.where(sent(own, other.device).view(-1, 1, 1, 1), batch.x_t, other)
        return dataclasses.replace(batch, x_t=x_t)

    def _noise(self, batch: ForgetBatch, x0: Tensor) -> Tensor:
        """The noise that makes m_t of the clean images `x0`."""
        signal, sigma = coefficients(self.problem.schedule, batch.t, x0)
        return (batch.x_t - signal * x0) / sigma

    def terms(self, prediction: Tensor, target: Tensor, batch: ForgetBatch) -> tuple[Tensor, Tensor]:
        """(1/B) times both sums."""
        schedule, partner = self.problem.schedule, self._partner(batch)
        of_x, of_a = self._noise(batch, partner), self._noise(batch, batch.x0)
        log_ratio = 0.5 * (_length(of_x) - _length(of_a))
        w_x, w_a = (w.to(target) for w in importance(log_ratio, self.problem.spec.mixture))
        share, output = self.problem.share(batch), prediction[batch.rows]
        towards = squared_error(output, training_target(schedule, partner, of_x, batch.t))
        away = squared_error(output, training_target(schedule, batch.x0, of_a, batch.t))
        losses = squared_error(prediction, target)
        kept = batch.place(losses, share * w_x * towards)
        return kept.sum() / len(losses), (share * w_a * away).sum() / len(losses)

    def weight(self, dot: float, kept: float, forgotten: float) -> float:
        """See the class; negative, as the ascent."""
        bound = self.problem.spec.superfactor * math.sqrt(kept / forgotten)
        return -min(float(catalog.value(self.problem.spec, "forget_weight")), bound)


def _length(noise: Tensor) -> Tensor:
    """Squared length [F] in float64, on the CPU where the device has none."""
    wide = noise.cpu() if noise.device.type == "mps" else noise
    return wide.double().square().flatten(1).sum(1)
