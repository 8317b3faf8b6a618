"""ReTrack's target: a weighted mean over neighbours, computed where plain exponentials vanish."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor

from guda_cli.diffusion.denoiser import add_noise
from guda_cli.diffusion.schedule import Schedule
from guda_cli.sections import UnlearnSpec
from guda_cli.unlearning.operators.base import ForgetBatch, Problem
from guda_cli.unlearning.operators.make import make
from guda_cli.unlearning.operators.retrack import Retrack, neighbour_noise, target_noise
from tests.diffusion.tiny import bytes_images, float_images, make_schedule

SPEC = UnlearnSpec(operator="retrack", neighbours=3, cap=None, forget_weight=1.0, t_min=0.0)


def noised(schedule: Schedule, x0: Tensor, t: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(x0.shape)).to(x0.dtype)
    steps = torch.full((len(x0),), t)
    return add_noise(schedule, x0, noise, steps), noise, steps


def exponents(schedule: Schedule, x_t: Tensor, t: int, neighbours: Tensor) -> Tensor:
    """-||x_t - sqrt(abar) a_r||^2 / (2 (1 - abar)) [B, K] in float64."""
    abar = float(schedule.abar[t])
    distance = (x_t.double().unsqueeze(1) - abar**0.5 * neighbours.double()).square().flatten(2).sum(2)
    return -distance / (2 * (1 - abar))


@pytest.mark.parametrize("t", [2, 100, 300, 600, 1000])
@pytest.mark.parametrize("near", [True, False])
def test_weights_do_not_vanish_at_image_size(t: int, near: bool) -> None:
    schedule = make_schedule("squaredcos_cap_v2", 1000)
    image = float_images(4, (3, 32, 32), seed=1)
    others = float_images(40, (3, 32, 32), seed=2).view(4, 10, 3, 32, 32)
    neighbours = image.unsqueeze(1) + 0.02 * others if near else others
    x_t, _, steps = noised(schedule, image, t)
    plain = torch.exp(exponents(schedule, x_t, t, neighbours).float())
    assert (plain == 0.0).all(), "the plain exponential is not 0 here: the test shows nothing"
    eps, weights = neighbour_noise(schedule, x_t, steps, neighbours)
    assert weights.dtype == torch.float32
    assert eps.shape == (4, 10, 3, 32, 32)
    assert torch.isfinite(weights).all()
    assert (weights.amax(1) >= 0.1).all()  # the largest of ten that sum to 1
    torch.testing.assert_close(weights.sum(1), torch.ones(4), rtol=0, atol=1e-6)
    exponent = exponents(schedule, x_t, t, neighbours)
    torch.testing.assert_close(
        weights.double(), torch.softmax(exponent, 1), rtol=0, atol=2e-2 if t == 2 else 1e-3
    )
    if near and t >= 300:  # neighbours this alike all have a say
        assert (weights > 0).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_zero_redirects_to_no_noise(prediction: str) -> None:
    """0.5 (raw - target of noise 0)^2 a forget entry: 0 as noise, -sqrt(1 - abar)/sqrt(abar) x_t as v."""
    schedule = make_schedule("linear", 60, prediction)
    spec = UnlearnSpec(operator="retrack-zero", forget_weight=0.5)
    images = bytes_images(3, (1, 2, 2))
    p = Problem(images, torch.tensor([True, False, False]), schedule, spec)
    x0 = images[:1].float() / 127.5 - 1
    x_t, noise, t = noised(schedule, x0, 30)
    batch = ForgetBatch(torch.tensor([0]), x0, noise, x_t, t, rows=torch.tensor([0]))
    raw = torch.full((1, 1, 2, 2), 0.25)
    abar = float(schedule.abar[30])
    goal = torch.zeros_like(x_t) if prediction == "epsilon" else -((1 - abar) ** 0.5) / abar**0.5 * x_t
    found = make(p).loss(raw, torch.zeros_like(raw), batch)
    assert float(found) == pytest.approx(0.5 * float((raw - goal).square().mean()), rel=1e-5)


def test_the_published_weights_vanish_at_image_size() -> None:
    """exp(-||.||^2 / 2) of noise of 3072 numbers, in float32, against the 1e-8 it is divided by."""
    assert float(torch.exp(torch.tensor(-3072 / 2.0))) == 0.0


def test_the_image_itself_as_only_neighbour_gives_the_noise() -> None:
    schedule = make_schedule("squaredcos_cap_v2", 1000)
    image = float_images(3, (3, 32, 32))
    for t in (1, 10, 500, 1000):
        x_t, noise, steps = noised(schedule, image, t)
        target = target_noise(schedule, x_t, steps, image.unsqueeze(1), noise)
        # x_t is rounded to float32 before it is divided by sqrt(1 - abar_t) again
        rounding = 3e-7 / float(1 - schedule.abar[t]) ** 0.5
        torch.testing.assert_close(target, noise, rtol=1e-6, atol=rounding)


def test_all_images_as_neighbours_give_the_exact_posterior_mean() -> None:
    """E[eps | x_t] under the empirical distribution of the retain images, dense and in float64."""
    schedule = make_schedule("linear", 60)
    images = float_images(14, (1, 4, 4), seed=3).double()
    forget, retain = images[:4], images[4:]
    weighted = 0
    for t in (1, 5, 20, 40, 60):
        x_t, noise, steps = noised(schedule, forget, t)
        expected = np.empty(forget.shape)
        abar = float(np.prod(1 - schedule.betas[:t]))
        for b, x in enumerate(x_t.numpy()):
            log_density = np.array(
                [-((x - abar**0.5 * a) ** 2).sum() / (2 * (1 - abar)) for a in retain.numpy()]
            )
            w = np.exp(log_density - logsumexp(log_density))
            weighted += w.max() < 0.9
            clean = (w.reshape(-1, 1, 1, 1) * retain.numpy()).sum(0)  # E[x0 | x_t]
            expected[b] = (x - abar**0.5 * clean) / (1 - abar) ** 0.5
        neighbours = retain.unsqueeze(0).expand(4, *retain.shape)
        target = target_noise(schedule, x_t, steps, neighbours, noise)
        assert target.dtype == torch.float64
        np.testing.assert_allclose(target.numpy(), expected, rtol=1e-9, atol=1e-9)
    assert weighted > 4  # several images share the weight in some of the cases


def test_cap_limits_the_distance_of_each_neighbour() -> None:
    schedule = make_schedule("linear", 60)
    images = float_images(7, (1, 4, 4), seed=4).double()
    x_t, noise, steps = noised(schedule, images[:1], 45)
    neighbours = images[1:].unsqueeze(0)
    eps, weights = neighbour_noise(schedule, x_t, steps, neighbours)
    distance = (eps - noise.unsqueeze(1)).flatten(2).norm(dim=2)[0]
    cap = float(distance.median())
    assert distance.min() < cap < distance.max()
    expected = torch.zeros_like(noise)
    for r in range(6):
        shift = eps[:, r] - noise
        expected += weights[0, r] * (noise + shift * min(1.0, cap / float(distance[r])))
    torch.testing.assert_close(target_noise(schedule, x_t, steps, neighbours, noise, cap), expected)
    one = target_noise(schedule, x_t, steps, neighbours[:, :1], noise, 0.125)
    assert float((one - noise).norm()) == pytest.approx(0.125, rel=1e-9)
    loose = target_noise(schedule, x_t, steps, neighbours, noise, 1e6)
    torch.testing.assert_close(loose, target_noise(schedule, x_t, steps, neighbours, noise))


def test_cap_of_the_image_itself_has_no_nan() -> None:
    schedule = make_schedule("linear", 60)
    images = torch.zeros(1, 1, 4, 4)
    x_t, _, steps = noised(schedule, images, 30)
    noise = neighbour_noise(schedule, x_t, steps, images.unsqueeze(1))[0][:, 0]
    target = target_noise(schedule, x_t, steps, images.unsqueeze(1), noise, 0.5)
    assert torch.equal(target, noise)


def problem(schedule: Schedule, spec: UnlearnSpec = SPEC, count: int = 12) -> Problem:
    forget = torch.zeros(count, dtype=torch.bool)
    forget[[1, 4, 5]] = True
    return Problem(bytes_images(count, (1, 4, 4), seed=6), forget, schedule, spec)


def entries(p: Problem, indices: list[int], t: list[int]) -> ForgetBatch:
    rows, steps = torch.tensor(indices), torch.tensor(t)
    x0 = p.images[rows].float() / 127.5 - 1
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(x0.shape)).float()
    return ForgetBatch(rows, x0, noise, add_noise(p.schedule, x0, noise, steps), steps)


def test_operator_uses_the_nearest_retain_images() -> None:
    schedule = make_schedule("linear", 60)
    p = problem(schedule)
    operator = make(p)
    assert isinstance(operator, Retrack)
    batch = entries(p, [5, 1, 5], [10, 30, 59])
    flat = p.images.double().flatten(1)
    redirect = operator.redirect(batch)
    for b, i in enumerate(batch.indices.tolist()):
        distance = (flat - flat[i]).square().sum(1)
        distance[p.forget] = torch.inf
        nearest = distance.argsort()[:3]
        neighbours = (p.images[nearest].float() / 127.5 - 1).unsqueeze(0)
        part = slice(b, b + 1)
        expected = target_noise(schedule, batch.x_t[part], batch.t[part], neighbours, batch.noise[part])
        torch.testing.assert_close(redirect.target[part], expected)
    assert redirect.weight.tolist() == [1.0, 1.0, 1.0]


def test_forgotten_images_are_never_neighbours() -> None:
    p = problem(make_schedule("linear", 60), dataclasses.replace(SPEC, neighbours=100))
    table = Retrack(p).table[p.forget]
    assert table.shape == (3, 9)
    for row in table.tolist():
        assert sorted(row) == [0, 2, 3, 6, 7, 8, 9, 10, 11]


def test_window_masks_small_t_and_lambda_scales() -> None:
    spec = dataclasses.replace(SPEC, t_min=0.4, forget_weight=0.3)
    p = problem(make_schedule("linear", 50), spec)
    batch = entries(p, [1, 4, 5, 1, 4], [1, 19, 20, 21, 50])
    torch.testing.assert_close(make(p).redirect(batch).weight, torch.tensor([0.0, 0.0, 0.3, 0.3, 0.3]))


def test_cap_of_the_recipe_reaches_the_target() -> None:
    schedule = make_schedule("linear", 60)
    batch = entries(problem(schedule), [1, 4], [25, 50])
    for cap, limited in ((0.01, True), (None, False)):
        target = make(problem(schedule, dataclasses.replace(SPEC, cap=cap))).redirect(batch).target
        distance = (target - batch.noise).flatten(1).norm(dim=1)
        assert bool((distance <= 0.0101).all()) == limited
