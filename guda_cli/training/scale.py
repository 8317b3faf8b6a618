"""Settings that let a large model be trained on little memory or many processes, without other results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from guda_cli.errors import RecipeError
from guda_cli.sections import TrainSpec
from guda_cli.training import distributed


@dataclass(frozen=True)
class Scale:
    """In how many parts a batch is computed, whether activations are computed anew, and the precision."""

    accumulation: int = 1
    checkpointing: bool = False
    precision: str = "no"  # no | bf16 | fp16

    @staticmethod
    def of(spec: TrainSpec) -> Scale:
        """What a recipe's `train` section says, which is for unlearning too."""
        return Scale(spec.gradient_accumulation, spec.gradient_checkpointing, spec.mixed_precision)

    def parts(self, size: int) -> list[Tensor]:
        """Which of a batch's `size` entries are computed together, int64 [n] each, by this process.

        Networks with dropout draw other masks in other parts; apart from this, and from rounding, the summed
        gradients are those of the whole batch.
        """
        own = torch.arange(distributed.rank(), size, distributed.world())
        return list(own.chunk(self.accumulation)) if len(own) else []


class Parts:
    """The parts of a run's batches: more and smaller ones once memory has not sufficed."""

    def __init__(self, scale: Scale, size: int, *, divisible: bool = True) -> None:
        """`size` entries a batch; not `divisible` where a step's loss is no sum over them."""
        self.size, self.divisible = size, divisible
        self.count = self._asked = scale.accumulation

    def __iter__(self) -> Iterator[Tensor]:
        """Which entries are computed together; see `Scale.parts`."""
        return iter(Scale(self.count).parts(self.size))

    @property
    def most(self) -> int:
        """Entries that are computed together, at most."""
        return max((len(rows) for rows in self), default=0)

    @property
    def halved(self) -> bool:
        """Whether they are smaller than was asked for."""
        return self.count > self._asked

    def halve(self) -> bool:
        """Go on with parts of half the size; False where there are none."""
        before = self.most
        if not self.divisible or before <= 1:
            return False
        while self.most > (before + 1) // 2:
            self.count *= 2
        return True


@contextmanager
def checkpointed(network: torch.nn.Module, on: bool) -> Iterator[None]:
    """Keep few activations of `network` for the backward and compute the rest anew (Chen et al. 2016).

    RecipeError when the network cannot do it.
    """
    if not on:
        yield
        return
    if not getattr(network, "_supports_gradient_checkpointing", False):
        raise RecipeError(
            f"train.gradient_checkpointing does not go with a {type(network).__name__}",
            fix="--set train.gradient_checkpointing=false",
        )
    network.enable_gradient_checkpointing()  # type: ignore[operator]
    try:
        yield
    finally:
        network.disable_gradient_checkpointing()  # type: ignore[operator]
