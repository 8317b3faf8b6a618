"""Several groups unlearned in one step each: as `unlearn.unlearn` does each, up to rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, Network
from guda_cli.diffusion.networks import Weights
from guda_cli.sections import UnlearnSpec
from guda_cli.training import stacked
from guda_cli.training.loop import Hooks
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Scale
from guda_cli.unlearning import catalog, subsets
from guda_cli.unlearning.guard import guard_weights
from guda_cli.unlearning.operators.base import Problem
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.unlearn import asked_at, loop_of, stream_of


def possible(spec: UnlearnSpec, scale: Scale) -> bool:
    """Whether the operator's loss follows from predictions alone, in plain float32.

    Not where it weighs gradients, which are those of one network.
    """
    return (
        "batch" not in catalog.row(spec.operator).needs
        and not scale.checkpointing
        and scale.precision == "no"
    )


def unlearn_together(
    denoiser: Network,
    problems: Sequence[Problem],
    *,
    teacher: Denoiser | None = None,
    scale: Scale = Scale(),  # noqa: B008 - frozen
    resume: Sequence[RunState | None],
    hooks: Sequence[Hooks],
) -> list[Weights]:
    """Weights after unlearning each of `problems`, which differ in `forget` (and `text`) alone.

    `denoiser` holds the full model on entry, and is not trained itself. `resume` are states of one step, or
    all None. `stacked.Parted` where each must go on alone.
    """
    spec, network = problems[0].spec, denoiser.network
    if not stacked.dropout_free(network) or len({state.step if state else 0 for state in resume}) > 1:
        raise stacked.Parted
    if spec.guard:
        problems = [dataclasses.replace(p, guard=guard_weights(denoiser, p)) for p in problems]
    subsets.prepare(network, spec.params, spec.seed)
    operators = [make(problem, teacher) for problem in problems]
    towards = _Once(teacher) if teacher is not None and spec.retain == "distill" else None
    streams = [stream_of(problem) for problem in problems]
    network.train()
    stack, alike = stacked.Stack(denoiser, len(problems)), not catalog.dose(spec)

    def losses_at(step: int) -> Iterator[Tensor]:
        for rows in scale.parts(spec.batch_size):
            if towards is not None:
                towards.forget()
            asked = []
            for operator, problem, stream in zip(operators, problems, streams, strict=True):
                if towards is not None and not alike:
                    towards.forget()
                asked.append(asked_at(stack.device, towards, operator, problem, stream, step, rows))
            conds = [each.cond for each in asked if each.cond is not None]
            predicted = stack.predict(
                torch.stack([each.x_t for each in asked]),
                torch.stack([each.t for each in asked]),
                torch.stack(conds) if conds else None,
            )
            yield torch.stack([each.loss(own) for each, own in zip(asked, predicted, strict=True)])

    return stacked.run(stack, losses_at, loop_of(spec), resume=resume, hooks=hooks)


class _Once:
    """A frozen denoiser that is asked the same by all groups, and answers it once."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner, self.schedule, self.device = inner, inner.schedule, inner.device
        self._said: Tensor | None = None

    def forget(self) -> None:
        """The next question is another."""
        self._said = None

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """See `Denoiser.predict`."""
        if self._said is None:
            self._said = self.inner.predict(x_t, t, cond)
        return self._said
