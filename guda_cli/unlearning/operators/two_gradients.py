"""Operators that weigh the gradient of the group's term against that of the rest's, at every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser
from guda_cli.unlearning.operators.base import ForgetBatch, Problem


class _Given(torch.autograd.Function):
    """A value whose gradients are already known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(outer[0] * g for g in ctx.gradients))


class TwoGradients(ABC):
    """L = kept + w forgotten, with a w that both gradients decide; one forward and two backwards a step."""

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        self.problem, self.parameters = problem, list(parameters)

    @abstractmethod
    def terms(self, prediction: Tensor, target: Tensor, batch: ForgetBatch) -> tuple[Tensor, Tensor]:
        """The two scalar terms (kept, forgotten) of a step's loss."""

    @abstractmethod
    def weight(self, dot: float, kept: float, forgotten: float) -> float:
        """w from the gradients' inner product and their squared lengths; `forgotten` is not 0."""

    def loss(self, prediction: Tensor, target: Tensor, batch: ForgetBatch) -> Tensor:
        """See `Operator.loss`. Its backward gives the gradient that was worked out here."""
        kept, forgotten = self.terms(prediction, target, batch)
        pull = self._gradient(kept, keep_graph=True)
        push = self._gradient(forgotten)
        dot, length, other = _inner((pull, push), (pull, pull), (push, push))
        w = self.weight(dot, length, other) if other > 0.0 else 0.0
        joined = [a + w * b for a, b in zip(pull, push, strict=True)]
        value: Tensor = _Given.apply((kept + w * forgotten).detach(), joined, *self.parameters)  # type: ignore[no-untyped-call]
        return value

    def _gradient(self, term: Tensor, keep_graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            term, self.parameters, retain_graph=keep_graph, allow_unused=True, materialize_grads=True
        )


def _inner(*pairs: tuple[Sequence[Tensor], Sequence[Tensor]]) -> list[float]:
    """Inner products of pairs of gradients: each tensor's part as it is summed, their sum in float64.

    Read together: on a GPU a reading waits for all work that it has.
    """
    parts = [torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]) for a, b in pairs]
    return [float(sum(row)) for row in torch.stack(parts).tolist()]
