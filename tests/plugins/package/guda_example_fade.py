"""The operator of this package."""

from collections.abc import Sequence

from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, squared_error
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.base import ForgetBatch, Problem


class Fade:
    """The group's targets are scaled down, so that its images lose what sets them apart."""

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        self.problem = problem

    def shown(self, batch: ForgetBatch) -> ForgetBatch:
        return batch

    def loss(self, prediction: Tensor, target: Tensor, batch: ForgetBatch) -> Tensor:
        assert batch.rows is not None
        faded = float(catalog.value(self.problem.spec, "fading")) * target[batch.rows]
        return squared_error(prediction, batch.place(target, faded)).mean()
