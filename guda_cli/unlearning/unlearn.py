"""One unlearning run: the shared stream, the operator's redirect, one forward a step."""

from __future__ import annotations

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import (
    Denoiser,
    UNetDenoiser,
    add_noise,
    from_noise,
    training_target,
)
from guda_cli.diffusion.schedule import Schedule
from guda_cli.errors import DataError
from guda_cli.training import loop
from guda_cli.training.model_io import Weights
from guda_cli.training.state import RunState
from guda_cli.training.stream import Stream, pixels
from guda_cli.unlearning.operators import ForgetBatch, Operator, Problem, make


def step_loss(
    denoiser: Denoiser,
    teacher: Denoiser | None,
    operator: Operator,
    problem: Problem,
    stream: Stream,
    step: int,
) -> Tensor:
    """L = (1/B) [sum over retain entries + sum over forget entries of weight x redirect loss].

    Dividing by the whole batch treats every retain entry alike whatever group is removed. Losses are
    mean squared errors per pixel of the model's own prediction type.
    """
    schedule, device = problem.schedule, denoiser.device
    batch = stream.at(step)
    x0 = pixels(problem.images, batch, flip=False).to(device)
    noise, t = batch.noise.to(device), batch.t.to(device)
    x_t = add_noise(schedule, x0, noise, t)
    target = training_target(schedule, x0, noise, t)
    weight = torch.ones(len(t), device=device)
    if teacher is not None:
        with torch.no_grad():
            target = teacher.predict(x_t, t)
    rows = problem.forget[batch.indices].nonzero().flatten().to(device)
    if len(rows):
        part = ForgetBatch(batch.indices[rows.cpu()], x0[rows], noise[rows], x_t[rows], t[rows])
        redirect = operator.redirect(part)
        target = target.index_copy(0, rows, _as_prediction(schedule, redirect.target, part))
        weight = weight.index_copy(0, rows, redirect.weight.to(weight.dtype))
    squared = (denoiser.predict(x_t, t) - target).square().flatten(1).mean(1)
    return (weight * squared).sum() / len(t)


def _as_prediction(schedule: Schedule, noise: Tensor, part: ForgetBatch) -> Tensor:
    """A noise target in the model's own prediction type; where abar_t = 0 the model's target as it was."""
    raw = from_noise(schedule, noise, part.x_t, part.t)
    plain = training_target(schedule, part.x0, part.noise, part.t)
    return torch.where(torch.isfinite(raw), raw, plain)


def unlearn(
    unet: torch.nn.Module,
    problem: Problem,
    *,
    teacher: Denoiser | None = None,
    resume: RunState | None = None,
    hooks: loop.Hooks,
) -> Weights:
    """Weights of `unet` (the full model's on entry) after unlearning `problem.forget`.

    Needs at least one image to forget and one to keep (DataError otherwise); `teacher` is the frozen
    full model when `retain` is `distill`.
    """
    if not bool(problem.forget.any()) or bool(problem.forget.all()):
        raise DataError("there must be at least one image to forget and one to keep")
    spec = problem.spec
    if spec.retain == "distill" and teacher is None:
        raise ValueError("retain: distill needs the full model as teacher")
    operator = make(problem)
    stream = Stream(
        len(problem.images), spec.batch_size, problem.schedule.T, tuple(problem.images.shape[1:]), spec.seed
    )
    denoiser = UNetDenoiser(unet, problem.schedule)
    unet.train()
    # Adam starts without moments here, so the rate warms up; ending at zero keeps the last batches' noise out
    settings = loop.LoopSpec(
        steps=spec.steps, lr=spec.lr, seed=spec.seed, warmup=max(1, spec.steps // 10), decay_lr=True
    )
    return loop.run(
        unet,
        lambda step: step_loss(denoiser, teacher, operator, problem, stream, step),
        settings,
        resume=resume,
        hooks=hooks,
    )
