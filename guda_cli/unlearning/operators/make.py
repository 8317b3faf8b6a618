"""The operator that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from guda_cli import plugins
from guda_cli.diffusion.denoiser import Denoiser
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.base import Operator, Problem


def make(problem: Problem, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()) -> Operator:
    """The operator that `problem.spec` names.

    `full` is the frozen full model, for operators that need it; `parameters` is what is trained, for those
    that weigh its gradients.
    """
    row = catalog.row(problem.spec.operator)
    operator: Operator = plugins.load(catalog.GROUP, row.name, row.where, object)(
        problem, full=full, parameters=parameters
    )
    return operator
