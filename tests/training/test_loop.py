"""The resumable loop: schedules, averages, resuming from any state, and refusing to diverge."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from guda_cli.training import loop
from guda_cli.training.loop import ema_decay, ema_update
from guda_cli.training.run_state import RunState


def spec(**changes: object) -> loop.LoopSpec:
    return dataclasses.replace(loop.LoopSpec(steps=6, lr=0.1, seed=0), **changes)


class Line(torch.nn.Module):
    """y = w x with one weight of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([1.0]))


def test_learning_rate_warms_up_then_stays() -> None:
    rates = [loop.learning_rate(spec(lr=0.8, warmup=4), step) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_learning_rate_is_a_cosine_to_zero() -> None:
    settings = spec(lr=2.0, warmup=2, decay_lr=True, steps=10)
    rates = [loop.learning_rate(settings, step) for step in range(11)]
    assert rates[:3] == pytest.approx([1.0, 2.0, 2.0])
    assert rates[2:] == pytest.approx([1 + math.cos(math.pi * k / 8) for k in range(9)])
    assert rates[6] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(0.0)


def test_learning_rate_without_warm_up() -> None:
    assert loop.learning_rate(spec(lr=0.3), 0) == 0.3
    assert loop.learning_rate(spec(lr=0.3, decay_lr=True), 0) == pytest.approx(0.3)


def test_ema_decay_rises_to_its_limit() -> None:
    assert [ema_decay(step, 0.9) for step in (0, 8, 71, 80, 500)] == pytest.approx(
        [0.1, 0.5, 72 / 81, 0.9, 0.9]
    )


def test_ema_update_by_hand() -> None:
    average = [torch.tensor([1.0, 2.0]), torch.tensor([[4.0]])]
    ema_update(average, [torch.tensor([3.0, 2.0]), torch.tensor([[0.0]])], 0.75)
    assert average[0].tolist() == [1.5, 2.0]
    assert average[1].tolist() == [[3.0]]


def test_returned_weights_are_the_average_of_the_path() -> None:
    model, path = Line(), []

    def loss_at(step: int) -> Tensor:
        path.append(model.w.item())
        return 2.0 * model.w.sum()

    final = loop.run(model, loss_at, spec(steps=4, ema=0.2, lr=0.25), hooks=loop.Hooks())
    path.append(model.w.item())
    assert path == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0], abs=1e-5)  # Adam's steps are lr long
    average = path[0]
    for step, weight in enumerate(path[1:]):
        decay = min(0.2, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    assert final["w"].item() == pytest.approx(average, rel=1e-5)
    plain = loop.run(
        model := Line(), lambda step: 2.0 * model.w.sum(), spec(steps=4, lr=0.25), hooks=loop.Hooks()
    )
    assert plain["w"].item() == pytest.approx(0.0, abs=1e-5)


def test_optimiser_is_adam_with_the_clip_and_decay_asked_for() -> None:
    """Two steps of AdamW by hand, gradient 5 clipped to length 1."""
    model = Line()
    settings = spec(steps=2, lr=0.1, weight_decay=0.5, grad_clip=1.0)
    final = loop.run(
        model, lambda step: (5.0 if step == 0 else 0.5) * model.w.sum(), settings, hooks=loop.Hooks()
    )
    w, m, v = 1.0, 0.0, 0.0
    for k, gradient in enumerate((1.0, 0.5), start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w -= 0.1 * 0.5 * w
        w -= 0.1 * (m / (1 - 0.9**k)) / (math.sqrt(v / (1 - 0.999**k)) + 1e-8)
    assert final["w"].item() == pytest.approx(w, rel=1e-5)


class Noisy(torch.nn.Module):
    """A small network with dropout."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.nn.Linear(6, 12)
        self.drop = torch.nn.Dropout(0.4)
        self.norm = torch.nn.BatchNorm1d(12)  # buffers must come back too
        self.last = torch.nn.Linear(12, 1)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.drop(torch.relu(self.norm(self.first(x)))))
        return out


FULL = loop.LoopSpec(steps=7, lr=0.05, seed=2, warmup=2, decay_lr=True, weight_decay=0.01, ema=0.9)


def run_noisy(
    settings: loop.LoopSpec = FULL, resume: RunState | None = None, hooks: loop.Hooks | None = None
) -> dict[str, Tensor]:
    model = Noisy()

    def loss_at(step: int) -> Tensor:
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    return loop.run(model, loss_at, settings, resume=resume, hooks=hooks or loop.Hooks())


def saved_states(settings: loop.LoopSpec = FULL) -> dict[int, bytes]:
    states: dict[int, bytes] = {}

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    run_noisy(settings, hooks=loop.Hooks(save=save, save_seconds=0.0))
    return states


@pytest.mark.parametrize("ema", [0.9, 0.0])
def test_resumed_at_any_step_ends_in_the_same_bits(ema: float) -> None:
    settings = dataclasses.replace(FULL, ema=ema)
    whole = run_noisy(settings)
    states = saved_states(settings)
    assert sorted(states) == [1, 2, 3, 4, 5, 6]
    for step, data in states.items():
        torch.manual_seed(1000 + step)
        again = run_noisy(settings, resume=RunState.from_bytes(step, data))
        assert list(again) == list(whole)
        for name, value in whole.items():
            assert torch.equal(again[name], value), (step, name)


def test_frozen_parameters_are_neither_trained_nor_saved() -> None:
    def run_part(resume: RunState | None, states: list[RunState]) -> tuple[Noisy, dict[str, Tensor]]:
        model = Noisy()
        for name, p in model.named_parameters():
            p.requires_grad_(name.startswith("last"))

        def loss_at(step: int) -> Tensor:
            return model(torch.full((4, 6), 0.1 * step)).square().mean()

        hooks = loop.Hooks(save=states.append, save_seconds=0.0)
        return model, loop.run(model, loss_at, FULL, resume=resume, hooks=hooks)

    states: list[RunState] = []
    model, final = run_part(None, states)
    trained = {"last.weight", "last.bias"}
    buffers = {f"norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert set(final) == trained | buffers
    for name, value in Noisy().named_parameters():
        assert torch.equal(dict(model.named_parameters())[name], value) == (name not in trained)
    for state in [RunState.from_bytes(s.step, s.to_bytes()) for s in states]:
        assert set(state.weights) == trained | buffers
        assert {name.rpartition("/")[0] for name in state.moments} == trained
        assert set(state.ema) == trained


def test_saving_does_not_change_the_result() -> None:
    whole = run_noisy()
    saving = run_noisy(hooks=loop.Hooks(save=lambda state: None, save_seconds=0.0))
    assert all(torch.equal(saving[name], whole[name]) for name in whole)


def test_dropout_of_a_step_does_not_depend_on_the_global_generator() -> None:
    torch.manual_seed(1)
    one = run_noisy()
    torch.manual_seed(2)
    two = run_noisy()
    other = run_noisy(dataclasses.replace(FULL, seed=3))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["last.weight"], other["last.weight"])


def test_no_state_is_saved_before_its_time() -> None:
    states: list[int] = []
    run_noisy(hooks=loop.Hooks(save=lambda state: states.append(state.step), save_seconds=1e6))
    assert states == []


def interrupted(hooks: loop.Hooks) -> dict[int, bytes]:
    states: dict[int, bytes] = {}

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    hooks.save, hooks.save_seconds = save, 1e6
    with pytest.raises(KeyboardInterrupt):
        run_noisy(hooks=hooks)
    return states


def assert_resumes_to_the_same_bits(states: dict[int, bytes]) -> None:
    whole = run_noisy()
    for step, data in states.items():
        again = run_noisy(resume=RunState.from_bytes(step, data))
        assert all(torch.equal(again[name], whole[name]) for name in whole), f"resumed at {step}"


def test_ctrl_c_between_steps_saves_the_state() -> None:
    told: list[float] = []

    def on_step(loss: float) -> None:
        told.append(loss)
        if len(told) == 3:
            raise KeyboardInterrupt

    states = interrupted(loop.Hooks(on_step=on_step))
    assert list(states) == [3]
    assert_resumes_to_the_same_bits(states)


@pytest.mark.parametrize("place", ["after the optimiser", "after the average"])
def test_ctrl_c_in_the_middle_of_a_step_saves_no_mixture(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """The signal may arrive between any two bytecodes: weights already moved must not count as unmoved."""
    calls: list[int] = []

    if place == "after the optimiser":
        step = torch.optim.AdamW.step

        def moved(self: torch.optim.AdamW) -> None:
            step(self)
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt

        monkeypatch.setattr(torch.optim.AdamW, "step", moved)
    else:

        def averaged(*args: object) -> None:
            ema_update(*args)  # type: ignore[arg-type]
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop, "ema_update", averaged)
    states = interrupted(loop.Hooks())
    monkeypatch.undo()
    assert_resumes_to_the_same_bits(states)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(bad: float) -> None:
    model, saves = Line(), []
    hooks = loop.Hooks(save=lambda state: saves.append(state.step), save_seconds=1e6)
    with pytest.raises(loop.Diverged, match="step 2") as caught:
        loop.run(model, lambda step: (bad if step == 2 else 1.0) * model.w.sum(), spec(), hooks=hooks)
    assert caught.value.exit_code == 3
    assert "lr" in caught.value.fix
    assert saves == []
    assert torch.isfinite(model.w).all()


def test_weights_that_are_not_finite_are_never_returned() -> None:
    """A finite loss with an infinite gradient, at the last step, when no further loss would tell."""
    model = Line()

    def loss_at(step: int) -> Tensor:
        return (model.w - 1.0).abs().sqrt().sum()

    with pytest.raises(loop.Diverged):
        loop.run(model, loss_at, spec(steps=1), hooks=loop.Hooks())


def test_losses_are_reported_in_order() -> None:
    told: list[float] = []
    model = Line()
    loop.run(
        model, lambda step: 0.0 * model.w.sum() + step, spec(steps=4), hooks=loop.Hooks(on_step=told.append)
    )
    assert told == [0.0, 1.0, 2.0, 3.0]


def test_state_round_trip() -> None:
    bits = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    state = RunState(
        step=9,
        weights={"a.weight": bits, "a.count": torch.tensor(5)},
        moments={"a.weight/exp_avg": -bits, "a.weight/step": torch.tensor(9.0)},
        ema={"a.weight": bits.T},
        seconds=12.5,
    )
    back = RunState.from_bytes(9, state.to_bytes())
    assert (back.step, back.seconds) == (9, 12.5)
    for kind in ("weights", "moments", "ema"):
        before, after = getattr(state, kind), getattr(back, kind)
        assert sorted(before) == sorted(after)
        for name, value in before.items():
            assert after[name].dtype == value.dtype
            assert torch.equal(after[name], value)


def test_seconds_add_up_over_resumed_runs() -> None:
    states = saved_states()
    resumed = RunState.from_bytes(3, states[3])
    resumed.seconds = 100.0
    seen: list[float] = []
    run_noisy(resume=resumed, hooks=loop.Hooks(save=lambda s: seen.append(s.seconds), save_seconds=0.0))
    assert seen
    assert all(100.0 <= value < 160.0 for value in seen)
