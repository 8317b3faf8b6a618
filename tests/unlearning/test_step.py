"""One step of unlearning: what each entry of the stream adds to the loss, and to which target."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, training_target
from guda_cli.diffusion.schedule import Schedule
from guda_cli.errors import DataError, RecipeError
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.sections import UnlearnSpec
from guda_cli.training import loop
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Scale
from guda_cli.training.stream import Batch, Stream
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.base import ForgetBatch, Problem
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.operators.redirect import Redirect, Redirecting
from guda_cli.unlearning.unlearn import step_loss, unlearn
from tests.diffusion.tiny import (
    PREDICTIONS,
    FunctionDenoiser,
    bytes_images,
    make_denoiser,
    make_schedule,
    make_unet,
    wavy,
)
from tests.unlearning import text_problem
from tests.unlearning.helpers import ANCHORS

COUNT, BATCH, SHAPE = 12, 8, (1, 4, 4)
SPEC = UnlearnSpec(
    operator="retrack",
    steps=4,
    batch_size=4,
    lr=1e-3,
    retain="denoise",
    neighbours=3,
    forget_weight=1.0,
    t_min=0.0,
)


def forget_mask(*rows: int, count: int = COUNT) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(rows)] = True
    return mask


def make_problem(schedule: Schedule, *rows: int, **changes: object) -> Problem:
    spec = dataclasses.replace(SPEC, **changes)
    return Problem(bytes_images(COUNT, SHAPE), forget_mask(*rows), schedule, spec)


def make_stream(schedule: Schedule) -> Stream:
    return Stream(COUNT, BATCH, schedule.T, SHAPE, seed=0)


def noised(p: Problem, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x0, noise, x_t and abar of a batch in float64."""
    abar = np.cumprod(1 - p.schedule.betas)[batch.t.numpy() - 1].reshape(-1, 1, 1, 1)
    x0 = p.images[batch.indices].double().numpy() / 127.5 - 1
    noise = batch.noise.double().numpy()
    return x0, noise, np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise, abar


def in_prediction_type(kind: str, noise: np.ndarray, x_t: np.ndarray, abar: np.ndarray) -> np.ndarray:
    """What a network of that type says when it means `noise`."""
    x0 = (x_t - np.sqrt(1 - abar) * noise) / np.sqrt(abar)
    v = np.sqrt(abar) * noise - np.sqrt(1 - abar) * x0
    return {"epsilon": noise, "sample": x0, "v_prediction": v}[kind]


def redirected(p: Problem, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Noise targets and weights of the whole batch under retrack, by a loop over the entries."""
    x0, noise, x_t, abar = noised(p, batch)
    retain = (~p.forget).nonzero().flatten()
    target, weight = noise.copy(), np.ones(len(x0))
    pixels = p.images.double().numpy() / 127.5 - 1
    for b, i in enumerate(batch.indices.tolist()):
        if not p.forget[i]:
            continue
        distance = ((pixels[retain] - pixels[i]) ** 2).sum((1, 2, 3))
        near = pixels[retain][np.argsort(distance)[: p.spec.neighbours]]
        eps = (x_t[b] - np.sqrt(abar[b]) * near) / np.sqrt(1 - abar[b])
        exponent = -0.5 * (eps**2).sum((1, 2, 3))
        w = np.exp(exponent - exponent.max())
        target[b] = ((w / w.sum()).reshape(-1, 1, 1, 1) * eps).sum(0)
        weight[b] = p.spec.forget_weight
    return target, weight


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_retrack_loss_by_hand(prediction: str) -> None:
    schedule = make_schedule("linear", 60, prediction)
    p, stream = make_problem(schedule, 1, 4, 5, 9, forget_weight=0.3), make_stream(schedule)
    batch = stream.at(2)
    assert p.forget[batch.indices].any()
    assert not p.forget[batch.indices].all()
    _, _, x_t, abar = noised(p, batch)
    noise, weight = redirected(p, batch)
    target = in_prediction_type(prediction, noise, x_t, abar)
    raw = wavy(torch.from_numpy(x_t), batch.t).numpy()
    expected = (weight * ((raw - target) ** 2).mean((1, 2, 3))).sum() / BATCH
    found = step_loss(FunctionDenoiser(schedule, wavy), None, make(p), p, stream, 2)
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_finetune_leaves_the_group_out(prediction: str) -> None:
    schedule = make_schedule("linear", 60, prediction)
    p, stream = make_problem(schedule, 1, 4, 5, 9, operator="finetune"), make_stream(schedule)
    batch = stream.at(0)
    _, noise, x_t, abar = noised(p, batch)
    target = in_prediction_type(prediction, noise, x_t, abar)
    raw = wavy(torch.from_numpy(x_t), batch.t).numpy()
    keep = ~p.forget[batch.indices].numpy()
    assert 0 < keep.sum() < BATCH
    expected = ((raw - target) ** 2).mean((1, 2, 3))[keep].sum() / BATCH
    found = step_loss(FunctionDenoiser(schedule, wavy), None, make(p), p, stream, 0)
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("operator", ["retrack", "finetune"])
def test_zero_terminal_snr_has_no_nan(prediction: str, operator: str) -> None:
    schedule = make_schedule("linear", 3, prediction, zero_snr=True)
    p, stream = make_problem(schedule, *range(6), operator=operator), make_stream(schedule)
    steps = [
        step for step in range(9) if ((stream.at(step).t == 3) & p.forget[stream.at(step).indices]).any()
    ]
    assert steps
    denoiser = FunctionDenoiser(schedule, wavy)
    for step in steps:
        assert torch.isfinite(step_loss(denoiser, None, make(p), p, stream, step))


class PerEntry:
    """Adds one parameter to each entry's prediction: its gradient is that entry's part of the loss."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.device = schedule, torch.device("cpu")
        self.entry = torch.zeros(BATCH, 1, 1, 1, requires_grad=True)
        self.shown: list[tuple[Tensor, Tensor]] = []

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        self.shown.append((x_t.clone(), t.clone()))
        return wavy(x_t, t) + self.entry


@pytest.mark.parametrize("operator", ["retrack", "finetune"])
def test_retain_entries_count_alike_whichever_group_goes(operator: str) -> None:
    schedule = make_schedule("linear", 60)
    stream, parts, shown = make_stream(schedule), [], []
    masks = [forget_mask(0, 1, 2, 3), forget_mask(3, 7, 8), forget_mask(11)]
    batch = stream.at(1)
    for mask in masks:
        p = dataclasses.replace(make_problem(schedule, operator=operator), forget=mask)
        denoiser = PerEntry(schedule)
        step_loss(denoiser, None, make(p), p, make_stream(schedule), 1).backward()
        parts.append(denoiser.entry.grad.flatten())
        shown.append(denoiser.shown)
    for x_t, t in (each[0] for each in shown):
        assert torch.equal(x_t, shown[0][0][0])
        assert torch.equal(t, batch.t)
    assert [len(each) for each in shown] == [1, 1, 1]  # one forward serves both terms
    retained = [~mask[batch.indices] for mask in masks]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = retained[i] & retained[j]
        assert both.any()
        assert torch.equal(parts[i][both], parts[j][both])
        assert (parts[i][both] != 0).all()
        one = retained[i] ^ retained[j]
        assert one.any()
        assert (parts[i][one] != parts[j][one]).all()
    if operator == "finetune":
        for part, kept in zip(parts, retained, strict=True):
            assert (part[~kept] == 0).all()


def test_distillation_follows_the_teacher_on_retain_entries_only() -> None:
    schedule = make_schedule("linear", 60)
    p, stream = make_problem(schedule, 1, 4, 5, 9, retain="distill"), make_stream(schedule)
    batch = stream.at(3)
    _, _, x_t, _ = noised(p, batch)
    teacher = FunctionDenoiser(schedule, lambda x, t: 0.25 * x - 0.5)
    noise, weight = redirected(p, batch)
    kept = ~p.forget[batch.indices].numpy()
    assert 0 < kept.sum() < BATCH
    target = np.where(kept.reshape(-1, 1, 1, 1), 0.25 * x_t - 0.5, noise)
    raw = wavy(torch.from_numpy(x_t), batch.t).numpy()
    expected = (weight * ((raw - target) ** 2).mean((1, 2, 3))).sum() / BATCH
    found = step_loss(FunctionDenoiser(schedule, wavy), teacher, make(p), p, stream, 3)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_model_equal_to_its_teacher_is_pulled_by_the_group_alone() -> None:
    schedule = make_schedule("linear", 60)
    p = make_problem(schedule, operator="finetune", retain="distill")
    p = dataclasses.replace(p, forget=forget_mask(1, 2))
    denoiser = FunctionDenoiser(schedule, wavy)
    assert float(step_loss(denoiser, denoiser, make(p), p, make_stream(schedule), 0)) == 0.0


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_redirect_to_the_noise_itself_is_plain_training(prediction: str) -> None:
    """An operator that changes nothing gives the training loss, in every prediction type."""

    class Nothing(Redirecting):
        schedule = make_schedule("linear", 60, prediction)

        def redirect(self, batch: ForgetBatch) -> Redirect:
            return Redirect(batch.noise, torch.ones(len(batch.t)))

    schedule = make_schedule("linear", 60, prediction)
    p, stream = make_problem(schedule, 1, 4, 5, 9), make_stream(schedule)
    batch = stream.at(0)
    x0, noise, x_t, _ = noised(p, batch)
    raw = wavy(torch.from_numpy(x_t), batch.t)
    plain = training_target(schedule, torch.from_numpy(x0), torch.from_numpy(noise), batch.t)
    found = step_loss(FunctionDenoiser(schedule, wavy), None, Nothing(), p, stream, 0)
    assert float(found) == pytest.approx(float((raw - plain).square().mean()), rel=1e-4)


def unlearned(
    spec: UnlearnSpec,
    resume: RunState | None = None,
    hooks: loop.Hooks | None = None,
    teacher: Denoiser | None = None,
) -> dict[str, Tensor]:
    p = Problem(bytes_images(COUNT, (1, 8, 8)), forget_mask(0, 2, 7), make_schedule(), spec)
    return unlearn(
        UNetDenoiser(make_unet(dropout=0.2), p.schedule),
        p,
        teacher=teacher,
        resume=resume,
        hooks=hooks or loop.Hooks(),
    )


@pytest.mark.parametrize(("operator", "retain"), [("retrack", "denoise"), ("finetune", "distill")])
def test_unlearning_resumed_at_every_save_ends_in_the_same_bits(operator: str, retain: str) -> None:
    spec = dataclasses.replace(SPEC, operator=operator, retain=retain)
    teacher = make_denoiser(seed=1) if retain == "distill" else None
    states: dict[int, bytes] = {}

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    whole = unlearned(spec, hooks=loop.Hooks(save=save, save_seconds=0.0), teacher=teacher)
    assert sorted(states) == [1, 2, 3]
    assert any(not torch.equal(whole[name], value) for name, value in make_unet().state_dict().items())
    for step, data in states.items():
        again = unlearned(spec, RunState.from_bytes(step, data), teacher=teacher)
        assert all(torch.equal(again[name], whole[name]) for name in whole), step


@pytest.mark.parametrize("value", [True, False])
def test_nothing_to_forget_or_to_keep_is_refused(value: bool) -> None:
    p = dataclasses.replace(make_problem(make_schedule()), forget=torch.full((COUNT,), value))
    with pytest.raises(DataError, match="forget"):
        unlearn(UNetDenoiser(make_unet(), p.schedule), p, hooks=loop.Hooks())


KINDS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPERATORS = ["retrack", "finetune", "neggrad", "esd", *ANCHORS]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("parts", [2, 6])
def test_the_shares_of_parts_add_up_to_the_step(operator: str, parts: int) -> None:
    """Every entry counts alike and draws the same numbers, whatever it is computed with."""
    text = text_problem.text_problem()
    p = text_problem.of(text, operator, t_min=0.0, forget_weight=0.7)
    full = text_problem.denoiser(text.bank, seed=1)
    denoiser, op, stream = text_problem.denoiser(text.bank), make(p, full), text_problem.stream(p)
    batch = stream.at(1)
    assert 0 < int(p.forget[batch.indices].sum()) < len(batch.t)
    with torch.no_grad():
        whole = step_loss(denoiser, None, op, p, stream, 1)
        shares = [
            step_loss(denoiser, None, op, p, stream, 1, rows)
            for rows in torch.arange(len(batch.t)).chunk(parts)
        ]
        mixed = [
            step_loss(denoiser, None, op, p, stream, 1, torch.arange(r, len(batch.t), 3)) for r in range(3)
        ]
    assert len(shares) > 1
    assert float(sum(shares)) == pytest.approx(float(whole), rel=1e-5)
    assert float(sum(mixed)) == pytest.approx(float(whole), rel=1e-5)
    assert all(float(share) != pytest.approx(float(whole) / parts, rel=1e-4) for share in shares)


@pytest.mark.parametrize(
    "scale",
    [Scale(accumulation=3), Scale(checkpointing=True), Scale(precision="bf16"), Scale(3, True, "fp16")],
)
def test_unlearning_in_parts_or_in_half_precision_ends_nearby(scale: Scale) -> None:
    def run(scale: Scale) -> Tensor:
        p = Problem(bytes_images(COUNT, (1, 8, 8)), forget_mask(0, 2, 7), make_schedule(), SPEC)
        denoiser, kinds, lean = UNetDenoiser(make_unet(), p.schedule), [], []
        denoiser.network.conv_in.register_forward_hook(lambda module, given, out: kinds.append(out.dtype))
        hooks = loop.Hooks(on_step=lambda loss: lean.append(denoiser.network.is_gradient_checkpointing))
        weights = unlearn(denoiser, p, teacher=make_denoiser(), scale=scale, hooks=hooks)
        assert kinds == [KINDS[scale.precision]] * SPEC.steps * (2 if scale.accumulation > 1 else 1)
        assert lean == [scale.checkpointing] * SPEC.steps
        assert not denoiser.network.is_gradient_checkpointing
        return torch.cat([w.flatten() for w in weights.values()])

    before = torch.cat([w.flatten() for w in make_unet().state_dict().values()])
    plain, other = run(Scale()), run(scale)
    moved = (plain - before).norm()
    assert moved > 0
    assert (other - plain).norm() < (1e-2 if scale.precision == "no" else 0.5) * moved


@pytest.mark.parametrize(
    "changes", [{"operator": "siss"}, {"operator": "erasediff"}, {"density_ratio": True, "t_min": 0.0}]
)
def test_steps_that_are_no_sum_over_entries_are_not_split(changes: dict[str, object]) -> None:
    spec = dataclasses.replace(SPEC, **changes)
    p = Problem(bytes_images(COUNT, (1, 8, 8)), forget_mask(0, 2, 7), make_schedule(), spec)
    with pytest.raises(RecipeError, match="gradient_accumulation"):
        unlearn(UNetDenoiser(make_unet(), p.schedule), p, scale=Scale(accumulation=2), hooks=loop.Hooks())
    catalog.check_parts(spec, 1)
    catalog.check_parts(SPEC, 2)
