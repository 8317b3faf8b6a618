"""A problem, its stream and a denoiser whose one parameter an operator's gradients can be worked out for."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import add_noise
from guda_cli.diffusion.schedule import Schedule
from guda_cli.families.family import Traits
from guda_cli.families.pixels import Pixels
from guda_cli.families.stable_diffusion import StableDiffusion
from guda_cli.sections import UnlearnSpec
from guda_cli.training.stream import Stream
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.base import ForgetBatch, Problem
from tests.diffusion.tiny import bytes_images, make_schedule

COUNT, BATCH, SHAPE = 12, 8, (1, 4, 4)
GROUP = (1, 4, 5, 9)
SPEC = UnlearnSpec(operator="neggrad", steps=2, batch_size=BATCH, lr=1e-3, t_min=0.0)


def mask(*rows: int, count: int = COUNT) -> Tensor:
    out = torch.zeros(count, dtype=torch.bool)
    out[list(rows)] = True
    return out


def problem(
    operator: str, schedule: Schedule | None = None, group: tuple[int, ...] = GROUP, **changes: Any
) -> Problem:
    spec = dataclasses.replace(SPEC, operator=operator, **changes)
    return Problem(bytes_images(COUNT, SHAPE), mask(*group), schedule or make_schedule("linear", 60), spec)


def stream(p: Problem) -> Stream:
    return Stream(COUNT, BATCH, p.schedule.T, tuple(p.images.shape[1:]), seed=0)


def mixed_steps(p: Problem, count: int) -> list[int]:
    """Which of the first `count` steps hold entries of the group and others."""
    members = [p.forget[stream(p).at(step).indices] for step in range(count)]
    return [step for step, found in enumerate(members) if found.any() and not found.all()]


def entries(p: Problem, step: int = 0) -> ForgetBatch:
    """The group's entries of a step of the stream."""
    batch = stream(p).at(step)
    rows = p.forget[batch.indices].nonzero().flatten()
    assert 0 < len(rows) < BATCH
    x0 = p.images[batch.indices[rows]].float() / 127.5 - 1
    noise, t = batch.noise[rows], batch.t[rows]
    x_t = add_noise(p.schedule, x0, noise, t)
    return ForgetBatch(batch.indices[rows], x0, noise, x_t, t, None, rows, step, BATCH)


class Scaled:
    """Predicts a * x_t + b, with scalar parameters a and b."""

    def __init__(self, schedule: Schedule, a: float = 0.6, b: float = 0.1) -> None:
        self.schedule, self.device = schedule, torch.device("cpu")
        self.parameters = [torch.tensor(value, requires_grad=True) for value in (a, b)]
        self.calls: list[tuple[Tensor, Tensor | None]] = []

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        self.calls.append((x_t.detach().clone(), cond))
        return self.parameters[0] * x_t + self.parameters[1]

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.stack(torch.autograd.grad(loss, self.parameters))


OPERATORS = tuple(row.name for row in catalog.ROWS)
ANCHORS = tuple(name for name in OPERATORS if name.startswith("anchor:"))


def traits(network: dict[str, Any], *, conditional: bool = False, text: bool = False) -> Traits:
    """What a model with a network of that configuration can be asked for."""
    family = StableDiffusion() if text else Pixels()
    return family.traits(network, "prompt" if text else "class" if conditional else "")
