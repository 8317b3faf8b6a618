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
from guda_cli.training.signals import held_back
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

    Parameters that require no gradient are neither trained nor saved nor returned.
    `loss_at(step)` must depend on the step alone, so that a run resumed from any saved state ends in
    the same bits. Raises Diverged when the loss is not finite; on KeyboardInterrupt the state is
    saved first.
    """
    run = _Run(model, spec, resume)
    saved_at, saved_step = time.monotonic(), run.step
    try:
        while run.step < spec.steps:
            hooks.on_step(run.advance(loss_at))
            due = time.monotonic() - saved_at >= hooks.save_seconds
            if hooks.save and run.step < spec.steps and due:
                hooks.save(run.state())
                saved_at, saved_step = time.monotonic(), run.step
    except KeyboardInterrupt:
        if hooks.save and run.whole and saved_step < run.step < spec.steps:
            hooks.save(run.state())
        raise
    return run.final()


class _Run:
    """Model, optimiser and average of one run, and how far it is."""

    def __init__(self, model: torch.nn.Module, spec: LoopSpec, resume: RunState | None) -> None:
        self.model, self.spec = model, spec
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trained]
        self.parameters = [p for _, p in trained]
        self.frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.parameters, lr=spec.lr, weight_decay=spec.weight_decay)
        self.average = [p.detach().clone() for p in self.parameters] if spec.ema else []
        self.step, self.whole = 0, True
        self._earlier, self._started = 0.0, time.monotonic()
        if resume is not None:
            self._restore(resume)

    def _restore(self, state: RunState) -> None:
        self.step, self._earlier = state.step, state.seconds
        held = {name: v for name, v in self.model.state_dict().items() if name in self.frozen}
        self.model.load_state_dict(held | state.weights)
        unpack_optimizer(self.optimizer, self.names, state.moments)
        if self.spec.ema:
            named = zip(self.names, self.parameters, strict=True)
            self.average = [state.ema[name].to(p.device) for name, p in named]

    def advance(self, loss_at: Callable[[int], Tensor]) -> float:
        """One step; returns its loss. The state is `whole` except while weights are being moved."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, self.step)
        # dropout reads the global generator
        torch.manual_seed(seed_of("guda.dropout/1", self.spec.seed, self.step))
        loss = loss_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.grad_clip))
        if not (math.isfinite(value) and math.isfinite(norm)):
            what = "loss" if not math.isfinite(value) else "gradient"
            raise Diverged(
                f"the {what} became {value if what == 'loss' else norm} at step {self.step}",
                why="the learning rate is too high for this model or the data holds extreme values",
                fix="lower train.lr (or unlearn.lr), e.g. --set train.lr=3e-4; nothing was stored",
            )
        with held_back():
            self.whole = False
            self.optimizer.step()
            if self.average:
                decay = ema_decay(self.step, self.spec.ema)
                ema_update(self.average, [p.detach() for p in self.parameters], decay)
            self.step, self.whole = self.step + 1, True
        return value

    def state(self) -> RunState:
        """What a later process needs to go on from here."""
        ema = dict(zip(self.names, self.average, strict=True)) if self.average else {}
        seconds = self._earlier + time.monotonic() - self._started
        moments = pack_optimizer(self.optimizer, self.names)
        return RunState(self.step, self._weights(), moments, ema, seconds)

    def _weights(self) -> dict[str, Tensor]:
        return {name: v for name, v in self.model.state_dict().items() if name not in self.frozen}

    def final(self) -> dict[str, Tensor]:
        """The weights, averaged where there is an average, on the CPU."""
        out = self._weights()
        if self.average:
            out.update(zip(self.names, self.average, strict=True))
        return {name: value.detach().cpu().contiguous() for name, value in out.items()}
