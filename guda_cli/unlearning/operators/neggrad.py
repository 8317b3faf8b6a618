"""Bounded gradient ascent on the group: its loss is raised up to that of a model that knows nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, squared_error, training_target
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.base import ForgetBatch, Problem

BLOCK = 256  # images that are made integers of eight bytes at once


class NegGrad:
    """L = (1/B) [sum over retain entries - lambda sum over forget entries of min(loss, null loss)].

    The null loss is that of predicting the mean of the target: noise 0 and the mean image (of both
    orientations, where training showed both). An entry above it has no gradient, so that ascent ends there
    (docs/methods.md).
    """

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        self.problem = problem
        if problem.images.dtype == torch.uint8:
            starts = range(0, len(problem.images), BLOCK)
            sums = [problem.images[i : i + BLOCK].sum(0, dtype=torch.int64) for i in starts]  # exact
            mean = torch.stack(sums).sum(0).double() / len(problem.images)
            self.mean = (mean / 127.5 - 1.0).float()
        else:
            self.mean = problem.images.mean(0, dtype=torch.float64).float()
        if problem.flip:
            self.mean = (self.mean + self.mean.flip(-1)) / 2

    def shown(self, batch: ForgetBatch) -> ForgetBatch:
        """The entries as they are."""
        return batch

    def null(self, batch: ForgetBatch) -> Tensor:
        """Loss [F] of predicting the mean for each entry."""
        schedule, x0 = self.problem.schedule, batch.x0
        mean = self.mean.to(x0.device).expand_as(x0)
        nothing = training_target(schedule, mean, torch.zeros_like(x0), batch.t)
        return squared_error(nothing, training_target(schedule, x0, batch.noise, batch.t))

    def loss(self, prediction: Tensor, target: Tensor, batch: ForgetBatch) -> Tensor:
        """See `Operator.loss`."""
        plain = training_target(self.problem.schedule, batch.x0, batch.noise, batch.t)
        losses = squared_error(prediction, batch.place(target, plain))
        bounded = torch.minimum(losses[batch.rows], self.null(batch))
        weight = catalog.value(self.problem.spec, "forget_weight") * self.problem.share(batch)
        return batch.place(losses, -weight * bounded).sum() / len(losses)
