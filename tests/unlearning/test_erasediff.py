"""EraseDiff: uniform noise as the target, and the direction nearest to the retain gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from guda_cli.unlearning.operators.base import uniform
from guda_cli.unlearning.operators.erasediff import EraseDiff
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.unlearn import step_loss
from tests.diffusion.tiny import make_schedule
from tests.unlearning.helpers import BATCH, GROUP, Scaled, entries, mixed_steps, problem, stream


def gradients(rate: float, step: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(g_r, g_f, the step's gradient) of the two parameters, the first two by numpy."""
    p, model = problem("erasediff", erase_rate=rate), Scaled(make_schedule("linear", 60))
    batch, part = stream(p).at(step), entries(p, step)
    abar = np.cumprod(1 - p.schedule.betas)[batch.t.numpy() - 1].reshape(-1, 1, 1, 1)
    x0 = p.images[batch.indices].double().numpy() / 127.5 - 1
    eps = batch.noise.double().numpy()
    x_t = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * eps
    target = eps.copy()
    target[part.rows.numpy()] = uniform("erasediff", p, part, x0.shape[1:]).numpy()
    forgotten = p.forget[batch.indices].numpy()
    residual = 0.6 * x_t + 0.1 - target
    each = np.stack([2 * (residual * x_t).mean((1, 2, 3)), 2 * residual.mean((1, 2, 3))], 1) / BATCH
    loss = step_loss(model, None, make(p, None, model.parameters), p, stream(p), step)
    return each[~forgotten].sum(0), each[forgotten].sum(0), model.gradient(loss).double().numpy()


@pytest.mark.parametrize("rate", [0.0, 0.3, 2.0])
def test_the_direction_is_the_nearest_that_forgets_fast_enough(rate: float) -> None:
    """min ||v - g_r||^2 subject to <v, g_f> >= eta ||g_f||^2, by a solver that knows no closed form."""
    retain, forget, found = gradients(rate)
    limit = rate * forget @ forget
    solved = minimize(
        lambda v: ((v - retain) ** 2).sum(), retain,
        constraints={"type": "ineq", "fun": lambda v: v @ forget - limit},
        method="SLSQP", options={"ftol": 1e-14},
    )  # fmt: skip
    np.testing.assert_allclose(found, solved.x, rtol=1e-4, atol=1e-6)


def test_without_conflict_it_is_the_retain_gradient() -> None:
    conflicts = 0
    steps = mixed_steps(problem("erasediff"), 6)
    for step in steps:
        retain, forget, found = gradients(0.0, step)
        if retain @ forget >= 0:
            np.testing.assert_allclose(found, retain, rtol=1e-4, atol=1e-6)
        else:
            conflicts += 1
            assert abs(found @ forget) < 1e-5
            left = retain - forget * (retain @ forget) / (forget @ forget)  # what does not conflict is kept
            np.testing.assert_allclose(found, left, rtol=1e-3, atol=1e-5)
    assert conflicts < len(steps)


@pytest.mark.parametrize(("dot", "rate", "weight"), [(2.0, 0.5, 0.0), (-1.0, 0.5, 0.75), (0.0, 0.5, 0.5)])
def test_weight_by_hand(dot: float, rate: float, weight: float) -> None:
    operator = make(problem("erasediff", erase_rate=rate))
    assert isinstance(operator, EraseDiff)
    assert operator.weight(dot, 9.0, 4.0) == weight


def test_the_value_reported_is_that_of_the_two_terms() -> None:
    p, model = problem("erasediff", erase_rate=1.0), Scaled(make_schedule("linear", 60))
    operator = make(p, None, model.parameters)
    assert isinstance(operator, EraseDiff)
    part = entries(p)
    prediction = model.predict(torch.ones(BATCH, *part.x0.shape[1:]), part.t)
    target = torch.zeros_like(prediction)
    kept, forgotten = operator.terms(prediction, target, part)
    pull = model.gradient(operator.terms(prediction, target, part)[0])
    prediction = model.predict(torch.ones(BATCH, *part.x0.shape[1:]), part.t)
    push = model.gradient(operator.terms(prediction, target, part)[1])
    w = max(0.0, 1.0 - float(pull @ push) / float(push @ push))
    prediction = model.predict(torch.ones(BATCH, *part.x0.shape[1:]), part.t)
    loss = operator.loss(prediction, target, part)
    assert float(loss.detach()) == pytest.approx(float((kept + w * forgotten).detach()), rel=1e-5)


def test_noise_is_uniform_and_the_same_whatever_group_an_entry_is_in() -> None:
    one, two = problem("erasediff"), problem("erasediff", group=(*GROUP, 0, 2, 3))
    a, b = entries(one), entries(two)
    first, second = (uniform("erasediff", p, e, (3, 50)) for p, e in ((one, a), (two, b)))
    assert 0 <= first.min() < 0.05
    assert 0.95 < first.max() < 1
    where = [b.rows.tolist().index(row) for row in a.rows.tolist()]
    assert torch.equal(first, second[where])
    assert not torch.equal(first, uniform("erasediff", one, entries(one, 1), (3, 50))[: len(first)])
