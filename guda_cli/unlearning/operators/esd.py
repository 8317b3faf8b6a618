"""ESD: steer away from the direction in which the group's class moves the prediction.

Gandikota et al. 2023 (arXiv 2303.07345, eq. 6), with class labels for prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser
from guda_cli.diffusion.transfer import sent
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.base import ForgetBatch, Problem
from guda_cli.unlearning.operators.redirect import Redirect, Redirecting


class Esd(Redirecting):
    """Target eps_full(x_t, null) - eta (eps_full(x_t, c_f) - eps_full(x_t, null)), eta = `guidance`.

    The weights of the combination sum to one, so it is the same one in every prediction type.
    ValueError without conditions or without the full model.
    """

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        if full is None or problem.cond is None:
            raise ValueError("esd needs each image's condition and the full model")
        self.schedule, self.problem = problem.schedule, problem
        self.full, self.cond = full, problem.cond

    def shown(self, batch: ForgetBatch) -> ForgetBatch:
        """Every entry of the group with its own condition: it is under this one that it is forgotten."""
        return dataclasses.replace(batch, cond=sent(self.cond[batch.indices], batch.x_t.device))

    @torch.no_grad()
    def redirect(self, batch: ForgetBatch) -> Redirect:
        """The guided target from the frozen full model; None is its null condition."""
        without = self.full.predict(batch.x_t, batch.t, None)
        steered = self.full.predict(batch.x_t, batch.t, batch.cond)
        target = without - self.problem.spec.guidance * (steered - without)
        weight = catalog.value(self.problem.spec, "forget_weight") * self.problem.share(batch)
        return Redirect(target, weight, raw=True)
