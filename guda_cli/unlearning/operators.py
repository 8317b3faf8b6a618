"""The operator protocol: what an unlearning method must say about the group's images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from guda_cli.diffusion.schedule import Schedule
from guda_cli.recipe import UnlearnSpec


@dataclass(frozen=True, eq=False)
class Problem:
    """What is unlearned from what: uint8 `images` [N, C, H, W] and `forget` [N], True for the group."""

    images: Tensor
    forget: Tensor
    schedule: Schedule
    spec: UnlearnSpec


@dataclass(frozen=True, eq=False)
class ForgetBatch:
    """The group's entries of one step: image `indices` [B], clean `x0`, `noise`, `x_t` and `t` [B]."""

    indices: Tensor
    x0: Tensor
    noise: Tensor
    x_t: Tensor
    t: Tensor


@dataclass(frozen=True, eq=False)
class Redirect:
    """Noise the model should predict for forget entries ([B, C, H, W]) and each entry's weight [B]."""

    target: Tensor
    weight: Tensor


class Operator(Protocol):
    """One way to unlearn: built once a group from its Problem, then asked at every step."""

    def redirect(self, batch: ForgetBatch) -> Redirect:
        """Targets and weights of the group's entries; weight 0 leaves an entry out of the loss."""
        ...


def make(problem: Problem) -> Operator:
    """The operator that `problem.spec` names."""
    from guda_cli.unlearning.finetune import Finetune
    from guda_cli.unlearning.retrack import Retrack

    classes: dict[str, Callable[[Problem], Operator]] = {"retrack": Retrack, "finetune": Finetune}
    return classes[problem.spec.operator](problem)
