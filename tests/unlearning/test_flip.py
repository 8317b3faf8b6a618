"""Where training mirrored images, unlearning does: every operator, guard and the check."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import add_noise
from guda_cli.training.stream import Batch, Stream
from guda_cli.unlearning import check, guard
from guda_cli.unlearning.operators.base import ForgetBatch, Problem
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.operators.neggrad import NegGrad
from guda_cli.unlearning.operators.redirect import Redirecting
from guda_cli.unlearning.unlearn import step_loss
from tests.diffusion.tiny import FunctionDenoiser, bytes_images, make_denoiser, make_schedule, wavy
from tests.unlearning.helpers import ANCHORS, BATCH, COUNT, OPERATORS, SHAPE, Scaled, mixed_steps, problem

PLAIN = [name for name in OPERATORS if name not in ANCHORS]


class Turned(Stream):
    """Shows all entries alike: as stored, or mirrored."""

    mirrored = False

    def at(self, step: int) -> Batch:
        batch = super().at(step)
        return dataclasses.replace(batch, flip=torch.full_like(batch.flip, self.mirrored))


def stream(p: Problem, mirrored: bool) -> Turned:
    out = Turned(COUNT, BATCH, p.schedule.T, SHAPE, seed=0)
    out.mirrored = mirrored
    return out


def of(operator: str, **changes: object) -> Problem:
    p = problem(operator, neighbours=3, **changes)
    cond = torch.arange(COUNT) % 3 if operator == "esd" else None
    return dataclasses.replace(p, flip=True, cond=cond)


class OfClass(Scaled):
    """Answers classes differently."""

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        plain = super().predict(x_t, t, cond)
        return plain if cond is None else plain + 0.1 * cond.view(-1, 1, 1, 1)


def loss(p: Problem, mirrored: bool, step: int) -> float:
    model = OfClass(p.schedule)
    operator = make(p, OfClass(p.schedule, 0.4), model.parameters)
    return float(step_loss(model, None, operator, p, stream(p, mirrored), step).detach())


@pytest.mark.parametrize(
    ("operator", "changes"),
    [*((name, {}) for name in PLAIN), ("retrack", {"density_ratio": True}), ("retrack", {"cap": 1.0})],
)
def test_a_mirrored_entry_is_an_entry_of_mirrored_data(operator: str, changes: dict[str, object]) -> None:
    p = of(operator, **changes)
    turned = dataclasses.replace(p, images=p.images.flip(-1))
    step = mixed_steps(p, 20)[0]
    assert loss(p, True, step) == pytest.approx(loss(turned, False, step), rel=1e-5)
    assert loss(p, True, step) != pytest.approx(loss(p, False, step), rel=1e-4)


@pytest.mark.parametrize("operator", PLAIN)
def test_without_flips_an_operator_sees_images_as_they_are(operator: str) -> None:
    p = dataclasses.replace(of(operator), flip=False)
    step = mixed_steps(p, 20)[0]
    assert loss(p, True, step) == loss(p, False, step)


def batch_of(p: Problem, x0: Tensor, flip: bool) -> ForgetBatch:
    noise, t = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.tensor([30])
    x_t, rows = add_noise(p.schedule, x0, noise, t), torch.tensor([0])
    return ForgetBatch(torch.tensor([1]), x0, noise, x_t, t, rows=rows, flip=torch.tensor([flip]))


@pytest.mark.parametrize("flip", [False, True])
def test_the_nearest_may_be_a_mirror_image(flip: bool) -> None:
    """Image 7 is the mirror image of image 1: of it, and of its mirror image, it is the neighbour."""
    images = bytes_images(COUNT, SHAPE)
    images[7] = images[1].flip(-1)
    p = dataclasses.replace(of("retrack"), images=images)
    p = dataclasses.replace(p, spec=dataclasses.replace(p.spec, neighbours=1, cap=None))
    operator = make(p)
    assert isinstance(operator, Redirecting)
    x0 = images[[1]].float() / 127.5 - 1
    batch = batch_of(p, x0.flip(-1) if flip else x0, flip)
    torch.testing.assert_close(operator.redirect(batch).target, batch.noise, rtol=1e-4, atol=1e-5)


def test_who_knows_nothing_predicts_the_mean_of_both_orientations() -> None:
    images = torch.zeros(COUNT, *SHAPE, dtype=torch.uint8)
    images[..., 0] = 255
    operator = make(dataclasses.replace(of("neggrad"), images=images))
    assert isinstance(operator, NegGrad)
    assert operator.mean[0, 0].tolist() == [0.0, -1.0, -1.0, 0.0]


def test_guard_takes_gradients_of_both_orientations() -> None:
    p = of("neggrad")
    rows, denoiser = torch.arange(COUNT), make_denoiser(p.schedule)
    [plain], [turned] = (
        list(guard.noised_draws(denoiser, each, rows, 0, 64))
        for each in (dataclasses.replace(p, flip=False), p)
    )
    assert torch.equal(plain.noise, turned.noise)
    assert torch.equal(plain.t, turned.t)
    same = [torch.equal(a, b) for a, b in zip(plain.x0, turned.x0, strict=True)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(plain.x0, turned.x0, strict=True)]
    assert any(same)
    assert any(mirrored)
    assert all(a or b for a, b in zip(same, mirrored, strict=True))


def test_the_check_looks_at_both_orientations() -> None:
    """Of one image, which is 1 on the left and -1 on the right, 64 noised copies."""
    schedule, images = make_schedule("linear", 64), torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    images[..., :2] = 255
    shown: list[Tensor] = []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        shown.append(x_t)
        return wavy(x_t, t)

    rows = torch.zeros(64, dtype=torch.int64)
    for flip in (False, True):
        check.losses(FunctionDenoiser(schedule, predict), images, rows, flip=flip)
    signal = torch.as_tensor(schedule.abar[1:]).sqrt().float()
    step = (shown[1] - shown[0])[:, 0, 0, 0]
    expected = {0.0, -2.0}
    assert {round(float(s), 3) + 0.0 for s in step / signal} == expected
    mirrored = int((step.abs() > 1e-6).sum())
    assert 16 <= mirrored <= 48
