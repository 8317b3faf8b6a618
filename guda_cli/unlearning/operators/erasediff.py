"""EraseDiff: push the group's predictions towards uniform noise as far as the rest lets it.

Wu et al. 2024 (arXiv 2401.05779): min L_r subject to f at its own minimum, by the first-order rule of
Liu et al. 2022 (BOME). The inner minimisation of f moves only a constant, whose gradient is 0, so it is
left out.
"""

from __future__ import annotations

from torch import Tensor

from guda_cli.diffusion.denoiser import squared_error
from guda_cli.diffusion.transfer import sent
from guda_cli.unlearning.operators.base import ForgetBatch, uniform
from guda_cli.unlearning.operators.two_gradients import TwoGradients


class EraseDiff(TwoGradients):
    """Steps along g_r + w g_f, w = max(0, eta - <g_r, g_f> / ||g_f||^2), eta = `erase_rate`.

    That is the direction nearest to the retain gradient g_r among those along which the forget loss f falls
    at a rate of at least eta ||g_f||^2. f is squared distance of the raw output to uniform noise in [0, 1).
    """

    def shown(self, batch: ForgetBatch) -> ForgetBatch:
        """The entries as they are."""
        return batch

    def terms(self, prediction: Tensor, target: Tensor, batch: ForgetBatch) -> tuple[Tensor, Tensor]:
        """(1/B) sum over retain entries, (1/B) sum over forget entries."""
        share = self.problem.share(batch)
        noise = uniform("erasediff", self.problem, batch, batch.x0.shape[1:])
        goal = sent(noise.to(batch.x0.dtype), batch.x0.device)
        losses = squared_error(prediction, batch.place(target, goal))
        kept = batch.place(losses, losses.new_zeros(len(share)))
        return kept.sum() / len(losses), (share * losses[batch.rows]).sum() / len(losses)

    def weight(self, dot: float, kept: float, forgotten: float) -> float:
        """See the class."""
        return max(0.0, self.problem.spec.erase_rate - dot / forgotten)
