"""Losses of several steps are read together where reading waits for the device, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guda_cli.training import loop, step_losses
from guda_cli.training.run_state import RunState
from guda_cli.training.step_losses import Reading, Readings

GPU = torch.device("cuda")  # only named: nothing is put there


def test_a_cpu_is_read_at_once_and_a_gpu_after_some_steps() -> None:
    for device, at_once, expected in (
        ("cpu", False, 1),
        ("cuda", True, 1),
        ("cuda", False, step_losses.STEPS),
    ):
        found = Readings(torch.device(device), at_once=at_once)
        steps = 0
        while not found.due:
            found.add(steps, [torch.tensor(0.0)], torch.tensor(1.0))
            steps += 1
        assert max(steps, 1) == expected


def test_what_was_noted_comes_back_in_order_and_once() -> None:
    found = Readings(GPU)
    found.add(3, [torch.tensor(0.25), torch.tensor(0.5)], torch.tensor(2.0))
    found.add(4, [torch.tensor(1.0)], torch.tensor(3.0))
    assert found.take() == [Reading(3, 0.75, 2.0), Reading(4, 1.0, 3.0)]
    assert found.take() == []


def test_a_slow_step_is_read_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_losses, "SECONDS", 0.0)
    assert Readings(GPU).due


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop reads the CPU as it would a GPU, and only after STEPS steps."""
    monkeypatch.setattr(step_losses, "SECONDS", 1e9)
    monkeypatch.setattr(loop, "Readings", lambda device, at_once: Readings(GPU, at_once=at_once))


def run(hooks: loop.Hooks, *, bad: int = -1, **changes: object) -> Tensor:
    model = Line()

    def loss_at(step: int) -> Tensor:
        return (model.w * (1.0 + step)).square().sum() * (float("nan") if step == bad else 1.0)

    spec = loop.LoopSpec(steps=40, lr=0.01, seed=0, **changes)
    return loop.run(model, loss_at, spec, hooks=hooks)["w"]


def test_reading_later_gives_the_same_losses_and_weights(request: pytest.FixtureRequest) -> None:
    told: list[float] = []
    plain = run(loop.Hooks(on_step=told.append))
    request.getfixturevalue("late")
    later: list[float] = []
    assert torch.equal(run(loop.Hooks(on_step=later.append)), plain)
    assert later == told
    assert len(told) == 40


@pytest.mark.usefixtures("late")
def test_a_loss_that_is_not_finite_is_named_by_its_step_and_never_saved() -> None:
    told: list[float] = []
    saved: dict[int, bool] = {}

    def save(state: RunState) -> None:
        saved[state.step] = bool(torch.isfinite(state.weights["w"]).all())

    with pytest.raises(loop.Diverged, match=r"the loss became nan at step 21$"):
        run(loop.Hooks(on_step=told.append, save=save, save_seconds=0.0), bad=21)
    assert saved == dict.fromkeys(range(1, 22), True)
    assert len(told) == 21
    for bad in (3, 39):  # read with others, and with those left at the end
        with pytest.raises(loop.Diverged, match=rf"at step {bad}$"):
            run(loop.Hooks(), bad=bad)
