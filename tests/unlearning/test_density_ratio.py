"""The full ReTrack objective: entries weighted by how likely the other images make them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.operators.retrack import RATIO_BOUND, Retrack, log_density_sum, ratio_weights
from tests.diffusion.tiny import float_images, make_schedule
from tests.unlearning.helpers import entries, problem


@pytest.mark.parametrize("block", [3, 1024])
def test_log_densities_by_hand(block: int) -> None:
    schedule = make_schedule("linear", 60)
    x, images = float_images(4, (1, 4, 4), 1), float_images(7, (1, 4, 4), 2).flatten(1)
    t = torch.tensor([1, 20, 40, 60])
    found = log_density_sum(schedule, x, t, images, block)
    for b, step in enumerate(t.tolist()):
        abar = float(np.prod(1 - schedule.betas[:step]))
        distance = ((x[b].flatten().double() - math.sqrt(abar) * images.double()) ** 2).sum(1).numpy()
        exponents = -distance / (2 * (1 - abar))
        expected = exponents.max() + np.log(np.exp(exponents - exponents.max()).sum())
        assert float(found[b]) == pytest.approx(expected, rel=1e-6)


def test_weights_have_mean_one_inside_and_are_cut() -> None:
    log_ratio = torch.tensor([-900.0, -901.0, -899.0, -1500.0], dtype=torch.float64)
    inside = torch.tensor([True, True, False, True])
    weights = ratio_weights(log_ratio, inside)
    e = math.exp(-1.0)
    assert weights.tolist() == pytest.approx([3 / (1 + e), 3 * e / (1 + e), 0.0, 0.0])
    many = torch.full((40,), -5000.0, dtype=torch.float64)
    many[3] = 0.0
    assert float(ratio_weights(many, torch.ones(40, dtype=torch.bool))[3]) == RATIO_BOUND
    assert ratio_weights(many, torch.zeros(40, dtype=torch.bool)).sum() == 0


def test_with_all_neighbours_the_ratio_is_the_exact_one() -> None:
    p = problem("retrack", neighbours=100, density_ratio=True, forget_weight=0.5, t_min=0.3, t_max=0.9)
    operator = make(p)
    assert isinstance(operator, Retrack)
    part = entries(p)
    part = dataclasses.replace(part, t=torch.tensor([5, 25, 40, 50, 58])[: len(part.t)])
    plain = make(dataclasses.replace(p, spec=dataclasses.replace(p.spec, density_ratio=False)))
    assert isinstance(plain, Retrack)
    flat = (p.images.double() / 127.5 - 1).flatten(1).numpy()
    ratio = np.zeros(len(part.t))
    for b, t in enumerate(part.t.tolist()):
        abar = float(np.prod(1 - p.schedule.betas[:t]))
        x = part.x_t[b].flatten().double().numpy()
        density = np.exp(-((x - math.sqrt(abar) * flat) ** 2).sum(1) / (2 * (1 - abar)))
        gone = p.forget.numpy()
        ratio[b] = density[~gone].mean() / density[gone].mean() if 0.3 * 60 <= t <= 0.9 * 60 else 0.0
    inside = ratio > 0
    assert 1 < inside.sum() < len(ratio)
    expected = 0.5 * np.minimum(ratio / ratio[inside].mean(), RATIO_BOUND)
    found, unweighted = operator.redirect(part), plain.redirect(part)
    np.testing.assert_allclose(found.weight.numpy(), expected, rtol=1e-4)
    assert torch.equal(found.target, unweighted.target)
    assert unweighted.weight.tolist() == [0.5 * float(x) for x in inside]


def test_weighted_redirection_is_training_on_the_rest() -> None:
    """E_k[r(x) g(x, eps_bar(x))] = E_-k[g(x, eps)] for g linear in the noise, by quadrature on a line.

    One pixel, two images in the group and three beside it: what the full objective rests on.
    """
    schedule, t = make_schedule("linear", 60), 45
    group, rest = torch.tensor([[-0.8], [0.1]]), torch.tensor([[0.5], [0.9], [-0.2]])
    abar = float(schedule.abar[t])
    sigma = math.sqrt(1 - abar)
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    steps = torch.full((len(x),), t)
    log_k = log_density_sum(schedule, x.view(-1, 1, 1, 1), steps, group) - math.log(2)
    log_rest = log_density_sum(schedule, x.view(-1, 1, 1, 1), steps, rest) - math.log(3)
    p_k = torch.exp(log_k) / (sigma * math.sqrt(2 * math.pi))
    eps = (x[:, None] - math.sqrt(abar) * rest.double().flatten()) / sigma
    eps_bar = (torch.softmax(-0.5 * eps**2, 1) * eps).sum(1)
    model = torch.tanh(x)
    width = float(x[1] - x[0])
    left = (p_k * torch.exp(log_rest - log_k) * model * eps_bar).sum() * width
    density = torch.exp(-0.5 * eps**2) / (sigma * math.sqrt(2 * math.pi))
    right = (density * model[:, None] * eps).mean(1).sum() * width
    assert float(left) == pytest.approx(float(right), rel=1e-8)
