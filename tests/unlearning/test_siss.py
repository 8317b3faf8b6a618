"""SISS: importance weights of the mixture, its extremes, and the bound on the ascent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from guda_cli.diffusion.denoiser import add_noise, squared_error
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.operators.siss import Siss, importance
from guda_cli.unlearning.unlearn import step_loss
from tests.diffusion.tiny import PREDICTIONS, make_schedule
from tests.unlearning.helpers import BATCH, Scaled, entries, mixed_steps, problem, stream


def operator_of(p: object, model: Scaled | None = None) -> Siss:
    made = make(p, None, model.parameters if model else ())  # type: ignore[arg-type]
    assert isinstance(made, Siss)
    return made


@pytest.mark.parametrize("mixture", [0.1, 0.5, 0.9])
def test_weighted_draws_of_the_mixture_average_to_either_side(mixture: float) -> None:
    """E_mix[w_x f] = E_x[f] and E_mix[w_a f] = E_a[f], by quadrature for two Gaussians on a line."""
    m = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    x, a = (torch.exp(-0.5 * (m - centre) ** 2) / math.sqrt(2 * math.pi) for centre in (-0.7, 1.1))
    w_x, w_a = importance(torch.log(a) - torch.log(x), mixture)
    mix, width = (1 - mixture) * x + mixture * a, float(m[1] - m[0])
    f = m**2 + torch.sin(m)
    assert float((mix * w_x * f).sum() * width) == pytest.approx(float((x * f).sum() * width), rel=1e-9)
    assert float((mix * w_a * f).sum() * width) == pytest.approx(float((a * f).sum() * width), rel=1e-9)
    torch.testing.assert_close((1 - mixture) * w_x + mixture * w_a, torch.ones_like(m))


def test_exponents_of_the_size_of_an_image_do_not_overflow() -> None:
    w_x, w_a = importance(torch.tensor([-4000.0, 4000.0, 0.0], dtype=torch.float64), 0.25)
    assert w_x.tolist() == pytest.approx([4 / 3, 0.0, 1.0])
    assert w_a.tolist() == pytest.approx([0.0, 4.0, 1.0])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("mixture", [0.0, 1.0])
def test_extremes_are_the_naive_losses(mixture: float, prediction: str) -> None:
    """lambda 0: plain training on the partner. lambda 1: plain ascent on the group's own latent."""
    p = problem("siss", make_schedule("linear", 60, prediction), mixture=mixture)
    operator, part = operator_of(p), entries(p)
    shown = operator.shown(part)
    partner = operator._partner(part)
    clean = partner if mixture == 0.0 else part.x0
    latent = add_noise(p.schedule, clean, part.noise, part.t)
    torch.testing.assert_close(shown.x_t, latent)
    prediction_ = torch.zeros(BATCH, *part.x0.shape[1:])
    prediction_[part.rows] = 0.4 * latent
    kept, ascended = operator.terms(prediction_, torch.zeros_like(prediction_), shown)
    signal = torch.from_numpy(p.schedule.abar)[part.t].sqrt().view(-1, 1, 1, 1).float()
    sigma = (1 - signal**2).sqrt()
    target = {
        "epsilon": part.noise, "sample": clean, "v_prediction": signal * part.noise - sigma * clean
    }[prediction]  # fmt: skip
    expected = float(squared_error(0.4 * latent, target).sum()) / BATCH
    assert float(kept if mixture == 0.0 else ascended) == pytest.approx(expected, rel=2e-3)


def test_partners_stay_and_latents_are_drawn_as_often_as_asked() -> None:
    p = problem("siss", mixture=0.3)
    operator = operator_of(p)
    retain = p.images[~p.forget].float() / 127.5 - 1
    own = total = 0
    for step in mixed_steps(p, 60):
        part = entries(p, step)
        for image in operator._partner(part):
            assert any(torch.equal(image, other) for other in retain)
        shown = operator.shown(part)
        own += int((shown.x_t == part.x_t).flatten(1).all(1).sum())
        total += len(part.rows)
    assert total > 100
    assert own / total == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / total))


def test_the_ascent_is_bounded_by_the_other_gradient() -> None:
    for superfactor, cap in ((0.1, 100.0), (100.0, 0.2)):
        p = problem("siss", superfactor=superfactor, forget_weight=cap)
        model = Scaled(p.schedule)
        operator, part = operator_of(p, model), entries(p)
        loss = step_loss(model, None, operator, p, stream(p), 0)
        found = model.gradient(loss)
        shown = operator.shown(part)
        batch = stream(p).at(0)
        x_t = add_noise(p.schedule, p.images[batch.indices].float() / 127.5 - 1, batch.noise, batch.t)
        x_t[part.rows] = shown.x_t
        assert torch.equal(model.calls[0][0], x_t)
        pull = model.gradient(operator.terms(model.predict(x_t, batch.t), batch.noise, shown)[0])
        push = model.gradient(operator.terms(model.predict(x_t, batch.t), batch.noise, shown)[1])
        assert push.norm() > 0
        scale = min(cap, superfactor * float(pull.norm() / push.norm()))
        np.testing.assert_allclose(found.numpy(), (pull - scale * push).numpy(), rtol=1e-4, atol=1e-6)
        assert float(scale * push.norm()) <= superfactor * float(pull.norm()) * (1 + 1e-6)
