"""The operator that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser
from guda_cli.unlearning.operators.base import Operator, Problem


def make(problem: Problem, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()) -> Operator:
    """The operator that `problem.spec` names.

    `full` is the frozen full model (esd and anchors need it), `parameters` what is trained (erasediff and
    siss need them for their gradients).
    """
    from guda_cli.unlearning.operators.anchor import Matched, OtherStyle, StyleRemoved
    from guda_cli.unlearning.operators.erasediff import EraseDiff
    from guda_cli.unlearning.operators.esd import Esd
    from guda_cli.unlearning.operators.finetune import Finetune
    from guda_cli.unlearning.operators.neggrad import NegGrad
    from guda_cli.unlearning.operators.retrack import Retrack
    from guda_cli.unlearning.operators.siss import Siss

    classes: dict[str, Callable[[], Operator]] = {
        "retrack": lambda: Retrack(problem),
        "esd": lambda: Esd(problem, full),
        "erasediff": lambda: EraseDiff(problem, parameters),
        "siss": lambda: Siss(problem, parameters),
        "neggrad": lambda: NegGrad(problem),
        "finetune": lambda: Finetune(problem),
        "anchor:awss": lambda: OtherStyle(problem, full),
        "anchor:uniform": lambda: OtherStyle(problem, full),
        "anchor:style-removed": lambda: StyleRemoved(problem, full),
        "anchor:matched": lambda: Matched(problem, full),
    }
    return classes[problem.spec.operator]()
