"""Bounded ascent: the group's loss rises to that of a model that knows nothing, and no further."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from guda_cli.diffusion.denoiser import training_target
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.operators.neggrad import NegGrad
from guda_cli.unlearning.unlearn import step_loss
from tests.diffusion.tiny import PREDICTIONS, make_schedule
from tests.unlearning.helpers import BATCH, Scaled, entries, problem, stream


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_by_hand(prediction: str) -> None:
    p = problem("neggrad", make_schedule("linear", 60, prediction), forget_weight=0.25)
    batch = stream(p).at(0)
    abar = np.cumprod(1 - p.schedule.betas)[batch.t.numpy() - 1].reshape(-1, 1, 1, 1)
    pixels = p.images.double().numpy() / 127.5 - 1
    x0, eps = pixels[batch.indices.numpy()], batch.noise.double().numpy()
    x_t = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * eps
    mean = pixels.mean(0)
    target = {
        "epsilon": eps, "sample": x0, "v_prediction": np.sqrt(abar) * eps - np.sqrt(1 - abar) * x0
    }[prediction]  # fmt: skip
    nothing = {
        "epsilon": 0 * eps, "sample": mean + 0 * x0, "v_prediction": -np.sqrt(1 - abar) * mean
    }[prediction]  # fmt: skip
    expected, clamped = 0.0, 0
    for b, i in enumerate(batch.indices.tolist()):
        loss = ((0.9 * x_t[b] + 0.4 - target[b]) ** 2).mean()
        null = ((nothing[b] - target[b]) ** 2).mean()
        clamped += bool(p.forget[i]) and loss > null
        expected += -0.25 * min(loss, null) if p.forget[i] else loss
    assert 0 < clamped < int(p.forget[batch.indices].sum())
    found = step_loss(Scaled(p.schedule, 0.9, 0.4), None, make(p), p, stream(p), 0)
    assert float(found.detach()) == pytest.approx(expected / BATCH, rel=1e-5)


def test_the_gradient_vanishes_above_the_null_loss() -> None:
    p = problem("neggrad", forget_weight=1.0)
    part = entries(p)
    operator = make(p)
    assert isinstance(operator, NegGrad)
    target = training_target(p.schedule, part.x0, part.noise, part.t)
    away = part.noise.abs().amax() * 3
    prediction = torch.zeros(BATCH, *part.x0.shape[1:])
    prediction[part.rows] = target
    prediction[part.rows[0]] += away  # worse than knowing nothing
    prediction[part.rows[1]] += 0.01  # nearly right
    prediction.requires_grad_()
    operator.loss(prediction, torch.zeros_like(prediction), part).backward()
    assert (prediction.grad[part.rows[0]] == 0).all()
    assert (prediction.grad[part.rows[1]] < 0).all()  # ascent: the step against it goes further away


def test_predicting_the_mean_is_exactly_the_bound() -> None:
    p = problem("neggrad")
    part = entries(p)
    operator = make(p)
    assert isinstance(operator, NegGrad)
    torch.testing.assert_close(operator.null(part), part.noise.square().flatten(1).mean(1))


def test_entries_outside_the_window_count_nothing() -> None:
    part = dataclasses.replace(entries(problem("neggrad")), t=torch.tensor([11, 12, 30, 45, 46]))
    p = problem("neggrad", t_min=0.2, t_max=0.75)
    assert p.share(part).tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    part = entries(problem("neggrad"))
    weighted = dataclasses.replace(problem("neggrad"), guard=torch.arange(12).float())
    assert weighted.share(part).tolist() == part.indices.tolist()
