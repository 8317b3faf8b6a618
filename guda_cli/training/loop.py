"""The one resumable optimisation loop; training and unlearning give it their loss."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from guda_cli import memory
from guda_cli.diffusion.noise import seed_of
from guda_cli.errors import GudaError
from guda_cli.phrases import plural
from guda_cli.training import determinism, distributed
from guda_cli.training.precision import SKIPS, Scaler
from guda_cli.training.run_state import RunState, pack_optimizer, unpack_optimizer
from guda_cli.training.scale import Parts
from guda_cli.training.signals import held_back
from guda_cli.training.step_losses import Reading, Readings

SaveState = Callable[[RunState], None]
LossAt = Callable[[int], Tensor | Iterable[Tensor]]


@dataclass(frozen=True)
class LoopSpec:
    """Optimiser settings of a run; `ema` 0 keeps no average, `decay_lr` is a cosine to zero.

    `scaled`: losses are scaled up for the backward, as float16 needs it. `rate_setting` is the recipe's entry
    that `lr` comes from, for advice; empty where it is train.lr or unlearn.lr.
    """

    steps: int
    lr: float
    seed: int
    warmup: int = 0
    decay_lr: bool = False
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema: float = 0.0
    scaled: bool = False
    rate_setting: str = ""


@dataclass
class Hooks:
    """What the caller does around steps: report progress, save state every `save_seconds`, tell.

    `on_step` is called once a step, on a GPU some steps later. `skipped` counts the steps that moved nothing,
    their float16 gradients having overflowed. `at_once` is how many entries of a batch were computed together
    in the end where memory did not suffice for more, and `repeatable` whether the same run ends in the same
    bits on the same machine.
    """

    on_step: Callable[[float], None] = lambda loss: None
    save: SaveState | None = None
    save_seconds: float = 20.0
    say: Callable[[str], None] = lambda text: None
    skipped: int = 0
    at_once: int | None = None
    repeatable: bool = True


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
    loss_at: LossAt,
    spec: LoopSpec,
    *,
    parts: Parts | None = None,
    resume: RunState | None = None,
    hooks: Hooks,
) -> dict[str, Tensor]:
    """Train `model` in place for `spec.steps` steps and return its final (EMA) weights.

    Parameters that require no gradient are neither trained nor saved nor returned.
    `loss_at(step)` must depend on the step alone, so that a run resumed from any saved state ends in
    the same bits. It may give the loss in summands, of which each is worked off before the next is asked
    for; where it makes them of `parts`, a step that does not fit into memory is taken again in smaller ones.
    In a launch of several processes gradients are summed over them and the chief saves; see `distributed`.
    Raises Diverged when the loss is not finite; on KeyboardInterrupt, and when another process is lost, the
    state is saved first.
    """
    run = _Run(model, spec, parts, resume, hooks)
    distributed.start(run.step, run.parameters[0].device)
    save = hooks.save if distributed.rank() == 0 else None
    saved_at, saved_step = time.monotonic(), run.step
    with determinism.strict():
        try:
            while run.step < spec.steps:
                run.advance(loss_at)
                run.tell()
                due = time.monotonic() - saved_at >= hooks.save_seconds
                if save and run.step < spec.steps and due:
                    save(run.state())
                    saved_at, saved_step = time.monotonic(), run.step
            run.look()
            run.tell()
        except (KeyboardInterrupt, distributed.PeerLost):
            if save and run.whole and saved_step < run.step < spec.steps:
                with held_back():  # launchers pass on a Ctrl-C that has come already
                    save(run.state())
            raise
    return run.final()


class _Run:
    """Model, optimiser and average of one run, and how far it is."""

    def __init__(
        self,
        model: torch.nn.Module,
        spec: LoopSpec,
        parts: Parts | None,
        resume: RunState | None,
        hooks: Hooks,
    ) -> None:
        self.model, self.spec, self.parts, self.hooks = model, spec, parts, hooks
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trained]
        self.parameters = [p for _, p in trained]
        self.frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.parameters, lr=spec.lr, weight_decay=spec.weight_decay)
        self.average = [p.detach().clone() for p in self.parameters] if spec.ema else []
        self.scaler = Scaler(self.parameters[0].device, spec.scaled)
        self.readings = Readings(self.parameters[0].device, at_once=spec.scaled)
        self.looked_at: list[float] = []
        self.step, self.whole = 0, True
        self._earlier, self._started = 0.0, time.monotonic()
        if resume is not None:
            self._restore(resume)

    def _restore(self, state: RunState) -> None:
        self.step, self._earlier = state.step, state.seconds
        held = {name: v for name, v in self.model.state_dict().items() if name in self.frozen}
        self.model.load_state_dict(held | state.weights)
        unpack_optimizer(self.optimizer, self.names, state.moments)
        if state.scaler is not None:
            self.scaler.restore(state.scaler)
        if self.parts is not None and state.parts is not None:
            self.parts.count = state.parts
            self.hooks.at_once = self.parts.most
        if self.spec.ema:
            named = zip(self.names, self.parameters, strict=True)
            self.average = [state.ema[name].to(p.device) for name, p in named]

    def advance(self, loss_at: LossAt) -> None:
        """One step. The state is `whole` except while weights are being moved."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, self.step)
        losses = self._gradients(loss_at)
        self.scaler.unscale(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.grad_clip)
        self.readings.add(self.step, losses, norm)
        if self.readings.due:
            self.look()
        with held_back():
            self.whole = False
            self.scaler.step(self.optimizer, norm)
            if self.average:
                decay = ema_decay(self.step, self.spec.ema)
                ema_update(self.average, [p.detach() for p in self.parameters], decay)
            self.step, self.whole = self.step + 1, True
        self.hooks.skipped = self.scaler.skipped

    def look(self) -> None:
        """Check what has been noted of the steps since the last look: Diverged where it is not finite."""
        for reading in self.readings.take():
            self._check(reading)
            self.looked_at.append(reading.loss)

    def tell(self) -> None:
        """Tell the losses of the steps that have been looked at."""
        told, self.looked_at = self.looked_at, []
        for loss in told:
            self.hooks.on_step(loss)

    def _gradients(self, loss_at: LossAt) -> list[Tensor]:
        """The step's gradients; returns the summands of its loss. See `_retried` for what may go wrong."""
        before = None if self.parts is None else self.parts.count
        while True:
            try:
                losses = self._backward(loss_at)
                break
            except (RuntimeError, MemoryError) as err:
                if not self._retried(err):
                    raise
            # here, as the error holds on to what the step had computed
            self.optimizer.zero_grad(set_to_none=True)
            gc.collect()
            if self.parameters[0].device.type == "cuda":
                torch.cuda.empty_cache()
        if self.parts is not None and self.parts.count != before:
            self.hooks.at_once = self.parts.most
            entries = plural(self.parts.most, "entry", "entries")
            self.hooks.say(
                f"memory did not suffice for a batch of {self.parts.size}: {entries} at a time now"
            )
        return losses

    def _retried(self, err: BaseException) -> bool:
        """Whether the step can be taken again in another way: in smaller parts, or less strictly."""
        if determinism.give_up(err):
            self.hooks.repeatable = False
            self.hooks.say(
                "this network has an operation without a deterministic form on this device: the same "
                "training again ends in other bits"
            )
            return True
        return memory.ran_out(err) and self.parts is not None and self.parts.halve()

    def _backward(self, loss_at: LossAt) -> list[Tensor]:
        """The step's gradients, of all processes; returns the summands of its loss."""
        # dropout reads the global generator; processes draw masks of their own
        place = (distributed.rank(),) if distributed.rank() else ()
        torch.manual_seed(seed_of("guda.dropout/1", self.spec.seed, self.step, *place))
        losses, told = loss_at(self.step), []
        self.optimizer.zero_grad(set_to_none=True)
        for loss in (losses,) if isinstance(losses, Tensor) else losses:
            self.scaler.backward(loss)
            told.append(loss.detach())
        return distributed.sum_gradients(self.parameters, told)

    def _check(self, reading: Reading) -> None:
        """Diverged when loss or gradients are not finite; scaled gradients may overflow now and then."""
        step, loss, norm = reading
        if not math.isfinite(loss):
            what = f"the loss became {loss} at step {step}"
        elif self.scaler.in_row >= SKIPS:
            what = f"the float16 gradients overflowed in {SKIPS} steps in a row, the last step {step}"
        elif not (math.isfinite(norm) or self.spec.scaled):
            what = f"the gradient became {norm} at step {step}"
        else:
            return
        fix = "lower train.lr or unlearn.lr"
        if self.spec.rate_setting:
            fix = f"--set {self.spec.rate_setting}={self.spec.lr / 3:.2g}"
        if self.spec.scaled:  # bfloat16 has the range of float32
            fix = "--set train.mixed_precision=bf16"
        raise Diverged(
            what,
            why="the learning rate is too high for this model or the data holds extreme values; nothing was "
            "stored",
            fix=fix,
        )

    def state(self) -> RunState:
        """What a later process needs to go on from here; Diverged where nobody should."""
        self.look()
        ema = dict(zip(self.names, self.average, strict=True)) if self.average else {}
        seconds = self._earlier + time.monotonic() - self._started
        moments = pack_optimizer(self.optimizer, self.names)
        parts = self.parts.count if self.parts is not None and self.parts.halved else None
        return RunState(self.step, self._weights(), moments, ema, seconds, self.scaler.state(), parts)

    def _weights(self) -> dict[str, Tensor]:
        return {name: v for name, v in self.model.state_dict().items() if name not in self.frozen}

    def final(self) -> dict[str, Tensor]:
        """The weights, averaged where there is an average, on the CPU."""
        out = self._weights()
        if self.average:
            out.update(zip(self.names, self.average, strict=True))
        return {name: value.detach().cpu().contiguous() for name, value in out.items()}


def ema_decay(step: int, limit: float) -> float:
    """The decay after `step` updates: (1 + step) / (10 + step), at most `limit`."""
    return min(limit, (1.0 + step) / (10.0 + step))


@torch.no_grad()
def ema_update(average: list[Tensor], weights: list[Tensor], decay: float) -> None:
    """average <- decay * average + (1 - decay) * weights, in place."""
    torch._foreach_lerp_(average, weights, 1.0 - decay)
