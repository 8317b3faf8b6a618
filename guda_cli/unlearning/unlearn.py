"""One unlearning run: the shared stream, the operator's say about the group, one forward a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, Network, add_noise, squared_error, training_target
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.transfer import sent
from guda_cli.errors import DataError
from guda_cli.sections import UnlearnSpec
from guda_cli.training import distributed, loop
from guda_cli.training.precision import mixed
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Parts, Scale, checkpointed
from guda_cli.training.stream import Stream, clean
from guda_cli.unlearning import catalog, subsets
from guda_cli.unlearning.guard import guard_weights
from guda_cli.unlearning.operators.base import Foresighted, ForgetBatch, Operator, Problem
from guda_cli.unlearning.operators.make import make


class Asked(NamedTuple):
    """What a step asks a network, and the loss that follows from its raw prediction."""

    x_t: Tensor
    t: Tensor
    cond: Tensor | None
    loss: Callable[[Tensor], Tensor]


def step_loss(
    denoiser: Denoiser,
    teacher: Denoiser | None,
    operator: Operator,
    problem: Problem,
    stream: Stream,
    step: int,
    only: Tensor | None = None,
) -> Tensor:
    """The loss of a step as the network that is trained makes it; see `asked_at`."""
    asked = asked_at(denoiser.device, teacher, operator, problem, stream, step, only)
    return asked.loss(denoiser.predict(asked.x_t, asked.t, asked.cond))


def asked_at(
    device: torch.device,
    teacher: Denoiser | None,
    operator: Operator,
    problem: Problem,
    stream: Stream,
    step: int,
    only: Tensor | None = None,
) -> Asked:
    """L = (1/B) [sum over retain entries + what the operator says of forget entries].

    Dividing by the whole batch treats every retain entry alike whatever group is removed. Losses are
    mean squared errors per pixel of the model's own prediction type; `teacher` gives the retain entries'
    targets where there is one. `only` int64 [n] are the entries whose share of L is wanted (None: all).
    """
    schedule = problem.schedule
    batch = stream.at(step)
    size = len(batch.t)
    only = torch.arange(size) if only is None else only
    batch = batch.take(only)
    x0 = clean(problem.images, batch, flip=problem.flip, device=device)
    noise, t = sent(batch.noise, device), sent(batch.t, device)
    x_t = add_noise(schedule, x0, noise, t)
    cond = _conditions(problem, stream, step)
    cond = None if cond is None else sent(cond[only], device)
    target = training_target(schedule, x0, noise, t)
    if teacher is not None:
        with torch.no_grad():
            target = teacher.predict(x_t, t, cond)
    place = problem.forget[batch.indices].nonzero().flatten()
    if not len(place):
        return Asked(x_t, t, cond, lambda prediction: squared_error(prediction, target).sum() / size)
    rows, indices = sent(place, device), batch.indices[place]
    own = None if cond is None else cond[rows]
    flip = batch.flip[place] if problem.flip else None
    part = ForgetBatch(
        indices, x0[rows], noise[rows], x_t[rows], t[rows], own, rows, step, size, only, flip, place
    )
    part = operator.shown(part)
    x_t = part.place(x_t, part.x_t)
    if cond is not None and part.cond is not None:
        cond = part.place(cond, part.cond)
    # operators divide by the entries that they are given
    return Asked(x_t, t, cond, lambda prediction: operator.loss(prediction, target, part) * (len(t) / size))


def _conditions(problem: Problem, stream: Stream, step: int) -> Tensor | None:
    """Each entry's condition [B, ...], a share of them the null condition, the same whatever group goes."""
    if problem.cond is None:
        return None
    cond = problem.cond[stream.indices(step)]
    if problem.null is not None and problem.dropout:
        cond[stream.unlabelled(step, problem.dropout)] = problem.null
    return cond


def stream_of(problem: Problem) -> Stream:
    """The stream that all groups share; with `forget_share`, the group's images put into it."""
    spec, images = problem.spec, problem.images
    of = (spec.batch_size, problem.schedule.T, tuple(images.shape[1:]), spec.seed)
    dose = catalog.dose(spec)
    return DosedStream(problem.forget, dose, *of) if dose else Stream(len(images), *of)


def unlearn(
    denoiser: Network,
    problem: Problem,
    *,
    teacher: Denoiser | None = None,
    scale: Scale = Scale(),  # noqa: B008 - frozen
    resume: RunState | None = None,
    hooks: loop.Hooks,
) -> Weights:
    """Weights of `denoiser` (the full model's on entry) after unlearning `problem.forget`.

    All of them, or those trained where `params` chooses some (low-rank factors as peft names them).
    Needs at least one image to forget and one to keep (DataError otherwise); `teacher` is the frozen
    full model, which `retain: distill` and esd need. `guard` weighs the forget terms by the weights on entry.
    RecipeError for what of `scale` the operator, the network or the device cannot do.
    """
    if not bool(problem.forget.any()) or bool(problem.forget.all()):
        raise DataError("there must be at least one image to forget and one to keep")
    spec = problem.spec
    if spec.retain == "distill" and teacher is None:
        raise ValueError("retain: distill needs the full model as teacher")
    catalog.check_parts(spec, scale.accumulation * distributed.world())
    network, model = denoiser.network, mixed(denoiser, scale.precision)
    teacher = None if teacher is None else mixed(teacher, scale.precision)
    if spec.guard:
        problem = dataclasses.replace(problem, guard=guard_weights(denoiser, problem))
    subsets.prepare(network, spec.params, spec.seed)
    trained = [p for p in network.parameters() if p.requires_grad]
    operator = make(problem, teacher, trained)
    stream, parts = stream_of(problem), Parts(scale, spec.batch_size, divisible=catalog.divisible(spec))
    towards = teacher if spec.retain == "distill" else None
    network.train()
    settings = loop_of(spec, scaled=scale.precision == "fp16")

    def losses_at(step: int) -> Iterator[Tensor]:
        for rows in parts:
            yield step_loss(model, towards, operator, problem, stream, step, rows)

    ahead = operator.foreseen(stream, spec.steps) if isinstance(operator, Foresighted) else nullcontext()
    with checkpointed(network, scale.checkpointing), ahead:
        return loop.run(network, losses_at, settings, parts=parts, resume=resume, hooks=hooks)


def loop_of(spec: UnlearnSpec, *, scaled: bool = False) -> loop.LoopSpec:
    """The optimiser's settings.

    Adam starts without moments here, so the rate warms up; ending at zero keeps the last batches' noise out.
    """
    warmup = max(1, spec.steps // 10)
    return loop.LoopSpec(spec.steps, spec.lr, spec.seed, warmup=warmup, decay_lr=True, scaled=scaled)


class DosedStream(Stream):
    """The shared stream with the first `dose` entries of every batch replaced by images of `forget` [N].

    Timesteps, noise and the other entries stay the shared stream's, whatever group goes. The group's images
    come in seeded epochs of their own. Of a group that is 1/60 of the data a batch of 8 has one image in
    seven or eight steps; Murata et al. 2026 draw half of each batch from it.
    """

    def __init__(
        self, forget: Tensor, dose: int, batch_size: int, T: int, shape: tuple[int, ...], seed: int
    ) -> None:
        super().__init__(len(forget), batch_size, T, shape, seed)
        self.group = forget.nonzero().flatten()
        self.dose = dose
        self._own = Stream(len(self.group), dose, T, shape, seed)

    def indices(self, step: int) -> Tensor:
        """See `Stream.indices`."""
        own = self.group[self._own.indices(step)]
        return torch.cat([own, super().indices(step)[self.dose :]])
