"""The one resumable optimisation loop; training and unlearning give it their loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guda_cli.diffusion.noise import seed_of
from guda_cli.errors import GudaError
from guda_cli.training.ema import ema_decay, ema_update
from guda_cli.training.state import RunState, pack_optimizer, unpack_optimizer

SaveState = Callable[[RunState], None]


@dataclass(frozen=True)
class LoopSpec:
    """Optimiser settings of a run; `ema` 0 keeps no average, `decay_lr` is a cosine to zero."""

    steps: int
    lr: float
    seed: int
    warmup: int = 0
    decay_lr: bool = False
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema: float = 0.0


@dataclass
class Hooks:
    """What the caller does around steps: report progress, save state every `save_seconds`."""

    on_step: Callable[[float], None] = lambda loss: None
    save: SaveState | None = None
    save_seconds: float = 20.0


class Diverged(GudaError):  # noqa: N818
    """The loss became NaN or infinite."""

    exit_code = 3


def learning_rate(spec: LoopSpec, step: int) -> float:
    """Linear warm-up, then constant or a cosine to zero."""
    if step < spec.warmup:
        return spec.lr * (step + 1) / spec.warmup
    if not spec.decay_lr:
        return spec.lr
    done = (step - spec.warmup) / max(spec.steps - spec.warmup, 1)
    return spec.lr * 0.5 * (1.0 + math.cos(math.pi * done))


def run(
    model: torch.nn.Module,
    loss_at: Callable[[int], Tensor],
    spec: LoopSpec,
    *,
    resume: RunState | None = None,
    hooks: Hooks,
) -> dict[str, Tensor]:
    """Train `model` in place for `spec.steps` steps and return its final (EMA) weights.

    `loss_at(step)` must depend on the step alone, so that a run resumed from any saved state ends in
    the same bits. Raises Diverged when the loss is not finite; on KeyboardInterrupt the state is
    saved first.
    """
    names = [name for name, _ in model.named_parameters()]
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay)
    average = [p.detach().clone() for p in parameters] if spec.ema else []
    step = 0
    if resume is not None:
        step = resume.step
        model.load_state_dict(resume.weights)
        unpack_optimizer(optimizer, names, resume.moments)
        average = (
            [resume.ema[name].to(p.device) for name, p in zip(names, parameters, strict=True)]
            if spec.ema
            else []
        )

    def state() -> RunState:
        ema = dict(zip(names, average, strict=True)) if spec.ema else {}
        seconds = (resume.seconds if resume else 0.0) + time.monotonic() - started
        return RunState(step, dict(model.state_dict()), pack_optimizer(optimizer, names), ema, seconds)

    started = saved_at = time.monotonic()
    saved_step = step
    try:
        while step < spec.steps:
            loss = _step(model, optimizer, loss_at, spec, step)
            if average:
                ema_update(average, [p.detach() for p in parameters], ema_decay(step, spec.ema))
            step += 1
            hooks.on_step(loss)
            if hooks.save and step < spec.steps and time.monotonic() - saved_at >= hooks.save_seconds:
                hooks.save(state())
                saved_at, saved_step = time.monotonic(), step
    except KeyboardInterrupt:
        if hooks.save and saved_step < step < spec.steps:
            hooks.save(state())
        raise
    final = dict(model.state_dict())
    if average:
        final.update(zip(names, average, strict=True))
    return {name: value.detach().cpu().contiguous() for name, value in final.items()}


def _step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_at: Callable[[int], Tensor],
    spec: LoopSpec,
    step: int,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(spec, step)
    torch.manual_seed(seed_of("guda.dropout/1", spec.seed, step))  # dropout reads the global generator
    loss = loss_at(step)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    value = float(loss.detach())
    if not math.isfinite(value):
        raise Diverged(
            f"the loss became {value} at step {step}",
            why="the learning rate is too high for this model or the data holds extreme values",
            fix="lower train.lr (or unlearn.lr), e.g. --set train.lr=3e-4; nothing was stored",
        )
    torch.nn.utils.clip_grad_norm_(model.parameters(), spec.grad_clip)
    optimizer.step()
    return value
