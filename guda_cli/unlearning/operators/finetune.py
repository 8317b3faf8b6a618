"""Retain-only fine-tuning: the group's entries are masked out of the stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser
from guda_cli.unlearning.operators.base import ForgetBatch, Problem
from guda_cli.unlearning.operators.redirect import Redirect, Redirecting


class Finetune(Redirecting):
    """Go on training without the group (the baseline of most unlearning papers)."""

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        self.schedule = problem.schedule

    def redirect(self, batch: ForgetBatch) -> Redirect:
        """Weight 0 for every entry of the group."""
        return Redirect(batch.noise, torch.zeros(len(batch.t), device=batch.t.device))
