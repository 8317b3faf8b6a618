"""Operators that only say what the network should predict for the group's entries, and how much it counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import from_noise, squared_error, training_target
from guda_cli.diffusion.schedule import Schedule
from guda_cli.unlearning.operators.base import ForgetBatch


@dataclass(frozen=True, eq=False)
class Redirect:
    """What the model should predict for forget entries ([F, C, H, W]) and each entry's weight [F].

    The target is noise, or with `raw` an output of the model's own prediction type.
    """

    target: Tensor
    weight: Tensor
    raw: bool = False


class Redirecting(ABC):
    """L = (1/B) [sum over retain entries + sum over forget entries of weight x redirected loss]."""

    schedule: Schedule

    @abstractmethod
    def redirect(self, batch: ForgetBatch) -> Redirect:
        """Targets and weights of the group's entries; weight 0 leaves an entry out of the loss."""

    def shown(self, batch: ForgetBatch) -> ForgetBatch:
        """The entries as they are."""
        return batch

    def loss(self, prediction: Tensor, target: Tensor, batch: ForgetBatch) -> Tensor:
        """See `Operator.loss`; divided by the whole batch, whatever group is removed."""
        found = self.redirect(batch)
        own = found.target if found.raw else _as_prediction(self.schedule, found.target, batch)
        weight = torch.ones(len(target), device=target.device)
        weight = batch.place(weight, found.weight.to(weight.dtype))
        return (weight * squared_error(prediction, batch.place(target, own))).sum() / len(target)


def _as_prediction(schedule: Schedule, noise: Tensor, part: ForgetBatch) -> Tensor:
    """A noise target in the model's own prediction type; where abar_t = 0 the model's target as it was."""
    raw = from_noise(schedule, noise, part.x_t, part.t)
    plain = training_target(schedule, part.x0, part.noise, part.t)
    return torch.where(torch.isfinite(raw), raw, plain)
