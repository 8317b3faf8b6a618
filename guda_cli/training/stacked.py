"""Several runs of one network in one step: weights stacked, each with its own loss, gradients and moments.

A small network on a GPU takes as long to launch for one run as for ten. Results are those of single runs up
to rounding: everything is elementwise but the sums in convolutions, which may be cut up differently.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.functional import FunctionalNetwork
from guda_cli.diffusion.networks import Weights
from guda_cli.training.loop import Hooks, LoopSpec, learning_rate
from guda_cli.training.run_state import RunState, pack_optimizer, unpack_optimizer
from guda_cli.training.signals import held_back


class Parted(Exception):  # noqa: N818
    """A run's loss or gradient is not finite: each has to go on alone, from the state that was saved."""


class Stack:
    """`count` copies of the trainable weights of `denoiser`, stacked as [count, ...]; the rest is shared."""

    def __init__(self, denoiser: Network, count: int) -> None:
        self.count, self.device = count, denoiser.device
        self._function = FunctionalNetwork(denoiser)
        state = denoiser.network.state_dict()
        parameters = dict(denoiser.network.named_parameters())
        self.weights = {
            name: p.detach().expand(count, *p.shape).clone().requires_grad_()
            for name, p in parameters.items()
            if p.requires_grad
        }
        for module in denoiser.network.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = partial(_group_norm, module)  # type: ignore[method-assign]
        self.beside = {name: value for name, value in state.items() if name not in parameters}

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Raw predictions [G, B, C, H, W], of each run for its own x_t [G, B, C, H, W], t [G, B], `cond`."""
        dims = (0, 0, 0, None if cond is None else 0)
        # the fused kernels of attention have no rule for vmap, which would loop over the runs
        with sdpa_kernel(SDPBackend.MATH):
            found: Tensor = vmap(self._function.predict, in_dims=dims)(self.weights, x_t, t, cond)
        return found


def _group_norm(module: torch.nn.GroupNorm, x: Tensor) -> Tensor:
    """What the module does. `torch.group_norm` first asks how `x` lies in memory, which vmap cannot say."""
    n, channels, *sides = x.shape
    size, groups = math.prod(sides), module.num_groups
    found = torch.native_group_norm(
        x.contiguous(), module.weight, module.bias, n, channels, size, groups, module.eps
    )
    return found[0]


LossesAt = Callable[[int], Iterable[Tensor]]
"""The losses [G] of all runs at a step, perhaps in summands."""


def dropout_free(network: torch.nn.Module) -> bool:
    """Whether a forward draws no random numbers: masks of runs in one step would be others than alone."""
    return not any(isinstance(m, torch.nn.modules.dropout._DropoutNd) and m.p for m in network.modules())


def run(
    stack: Stack,
    losses_at: LossesAt,
    spec: LoopSpec,
    *,
    resume: Sequence[RunState | None],
    hooks: Sequence[Hooks],
) -> list[Weights]:
    """Take the steps of all runs together and return the weights of each; see `loop.run`.

    All go on from one step: their states are of the same, or there is none. There is no average and no
    float16. `hooks` are each run's; the first's times are all's. Parted where a run must end alone; on
    KeyboardInterrupt states are saved first.
    """
    runs = _Runs(stack, spec, resume)
    saved_at, saved_step = time.monotonic(), runs.step

    def save() -> None:
        for each, own in enumerate(hooks):
            if own.save is not None:
                own.save(runs.state(each))

    try:
        while runs.step < spec.steps:
            values = runs.advance(losses_at)
            for own, value in zip(hooks, values, strict=True):
                own.on_step(value)
            if runs.step < spec.steps and time.monotonic() - saved_at >= hooks[0].save_seconds:
                save()
                saved_at, saved_step = time.monotonic(), runs.step
    except (KeyboardInterrupt, Parted):
        if runs.whole and saved_step < runs.step < spec.steps:
            with held_back():
                save()
        raise
    return [runs.final(each) for each in range(stack.count)]


class _Runs:
    """Stacked weights, their optimiser, and how far all of them are."""

    def __init__(self, stack: Stack, spec: LoopSpec, resume: Sequence[RunState | None]) -> None:
        self.stack, self.spec = stack, spec
        self.names, self.parameters = list(stack.weights), list(stack.weights.values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=spec.lr, weight_decay=spec.weight_decay)
        self.step, self.whole = 0, True
        self._earlier, self._started = [0.0] * stack.count, time.monotonic()
        known = [state for state in resume if state is not None]
        if known:
            self._restore(known)

    def _restore(self, states: Sequence[RunState]) -> None:
        [self.step] = {state.step for state in states}
        self._earlier = [state.seconds for state in states]
        with torch.no_grad():
            for name, parameter in self.stack.weights.items():
                parameter.copy_(torch.stack([state.weights[name] for state in states]))
        moments = {
            slot: value if slot.endswith("/step") else torch.stack([state.moments[slot] for state in states])
            for slot, value in states[0].moments.items()
        }
        unpack_optimizer(self.optimizer, self.names, moments)

    def advance(self, losses_at: LossesAt) -> list[float]:
        """One step of all runs; their losses. Parted, with nothing moved, where one is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(self.stack.count, device=self.stack.device)
        for losses in losses_at(self.step):
            losses.sum().backward()  # type: ignore[no-untyped-call]
            total += losses.detach()
        norms = self._clip()
        values, lengths = torch.stack([total, norms]).tolist()  # the one wait for the device
        if not all(map(math.isfinite, [*values, *lengths])):
            raise Parted
        with held_back():
            self.whole = False
            self.optimizer.step()
            self.step, self.whole = self.step + 1, True
        return list(values)

    def _clip(self) -> Tensor:
        """Clip each run's gradient as `clip_grad_norm_` does a single one; their norms before [G]."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        parts = torch.stack([g.flatten(1).norm(dim=1) for g in gradients])
        norms: Tensor = parts.norm(dim=0)
        factor = (self.spec.grad_clip / (norms + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))
        return norms

    def state(self, each: int) -> RunState:
        """What the run number `each` needs to go on from here, alone or not."""
        moments = {
            slot: value if slot.endswith("/step") else value[each]
            for slot, value in pack_optimizer(self.optimizer, self.names).items()
        }
        seconds = self._earlier[each] + (time.monotonic() - self._started) / self.stack.count
        return RunState(self.step, self._weights(each), moments, {}, seconds)

    def _weights(self, each: int) -> Weights:
        return self.stack.beside | {name: p[each] for name, p in self.stack.weights.items()}

    def final(self, each: int) -> Weights:
        """The weights of one run, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self._weights(each).items()}
