"""Scaling of float16 gradients: overflowing steps are skipped, counted, and not endured for ever."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guda_cli.training import loop
from guda_cli.training.precision import SKIPS
from guda_cli.training.run_state import RunState

SPEC = loop.LoopSpec(steps=8, lr=0.1, seed=0, ema=0.5, scaled=True)
HUGE = 1e35  # with torch's first scale, 2^16, infinite in float32; with 2^11 no longer


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([1.0]))


def run(
    factor: float = HUGE, resume: RunState | None = None, hooks: loop.Hooks | None = None
) -> tuple[Tensor, list[float]]:
    """The average of the weight, and the weight before every step."""
    model, path = Line(), []

    def loss_at(step: int) -> Tensor:
        path.append(model.w.item())
        return factor * model.w.sum()

    final = loop.run(model, loss_at, SPEC, resume=resume, hooks=hooks or loop.Hooks())
    return final["w"], path


def test_steps_that_overflow_move_nothing_and_are_counted() -> None:
    hooks = loop.Hooks()
    _, path = run(hooks=hooks)
    assert path[:6] == [1.0] * 6
    assert path[6] == pytest.approx(0.9)
    assert path[7] == pytest.approx(0.8)
    assert hooks.skipped == 5


def test_scaling_changes_no_step_that_does_not_overflow() -> None:
    hooks = loop.Hooks()
    _, path = run(0.5, hooks=hooks)
    assert path == pytest.approx([1.0 - 0.1 * k for k in range(8)], abs=1e-6)
    assert hooks.skipped == 0


def test_resumed_among_skipped_steps_ends_in_the_same_bits() -> None:
    states: dict[int, bytes] = {}

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    hooks = loop.Hooks(save=save, save_seconds=0.0)
    whole, _ = run(hooks=hooks)
    assert sorted(states) == list(range(1, 8))
    for step, data in states.items():
        later = loop.Hooks()
        assert torch.equal(run(resume=RunState.from_bytes(step, data), hooks=later)[0], whole), step
        assert later.skipped == hooks.skipped


def test_gradients_that_always_overflow_end_the_run() -> None:
    model, seen = Line(), []

    def loss_at(step: int) -> Tensor:
        seen.append(step)
        return (model.w - 1.0).abs().sqrt().sum()  # its gradient at 1 is not a number

    spec = loop.LoopSpec(steps=100, lr=0.1, seed=0, scaled=True)
    with pytest.raises(loop.Diverged, match="overflowed") as caught:
        loop.run(model, loss_at, spec, hooks=loop.Hooks())
    assert len(seen) == SKIPS + 1
    assert "bf16" in caught.value.fix


def test_without_scaling_there_is_no_state_of_it() -> None:
    states: list[RunState] = []
    model = Line()
    spec = loop.LoopSpec(steps=2, lr=0.1, seed=0)
    hooks = loop.Hooks(save=states.append, save_seconds=0.0)
    loop.run(model, lambda step: model.w.sum(), spec, hooks=hooks)
    [state] = states
    assert state.scaler is None
    assert RunState.from_bytes(1, state.to_bytes()).scaler is None
