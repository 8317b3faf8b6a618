"""GUARD: alignment is the inner product of gradients; what the rest needs is spared."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from guda_cli.families.pixels import UNetDenoiser
from guda_cli.training import loop
from guda_cli.unlearning import catalog, guard
from guda_cli.unlearning.operators.base import Problem
from guda_cli.unlearning.unlearn import unlearn
from tests.diffusion.tiny import bytes_images, make_denoiser, make_schedule
from tests.unlearning.helpers import COUNT, mask, problem

ATTENTION = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")
}  # fmt: skip


def case(**changes: object) -> Problem:
    p = problem("neggrad", group=(0, 2, 7), **changes)
    return dataclasses.replace(p, images=bytes_images(COUNT, (1, 8, 8)))


@pytest.mark.parametrize("classes", [None, 4])
def test_alignment_is_the_inner_product_of_gradients(classes: int | None) -> None:
    """Against one ordinary backward for every image, in a network with attention."""
    denoiser = make_denoiser(make_schedule("linear", 60), num_class_embeds=classes, **ATTENTION)
    p = case()
    if classes:
        p = dataclasses.replace(p, cond=torch.arange(COUNT) % 3)
    rows = p.forget.nonzero().flatten()
    retain = guard.retain_gradient(denoiser, p)
    found = guard.alignments(denoiser, p, rows, retain)
    names = [name for name, _ in denoiser.network.named_parameters()]
    assert sorted(retain) == sorted(names)

    def gradient(of: Tensor, draw: int) -> list[Tensor]:
        [batch] = guard.noised_draws(denoiser, p, of, draw, 64)
        raw = denoiser.predict(batch.x_t, batch.t, batch.cond)
        each = (raw - batch.target).square().flatten(1).mean(1)
        return list(torch.autograd.grad(each.mean(), list(denoiser.network.parameters()), allow_unused=True))

    stays = gradient((~p.forget).nonzero().flatten(), 0)
    for name, expected in zip(names, stays, strict=True):
        torch.testing.assert_close(retain[name], expected, rtol=1e-4, atol=1e-5)
    for row, value in zip(rows, found.tolist(), strict=True):
        each = []
        for draw in range(catalog.GUARD_DRAWS):
            own = gradient(row.view(1), draw)
            each.append(sum(float((a * b).sum()) for a, b in zip(own, stays, strict=True)))
        assert value == pytest.approx(sum(each) / catalog.GUARD_DRAWS, rel=1e-3, abs=1e-6)


def test_weights_fall_with_alignment_and_have_mean_one() -> None:
    aligned = torch.tensor([3.0, -1.0, 0.5, 7.0])
    weights = guard.weights_from(aligned, 1.0)
    assert weights.argsort(descending=True).tolist() == [1, 2, 0, 3]
    assert float(weights.mean()) == pytest.approx(1.0)
    z = (aligned.double() - aligned.mean()) / aligned.double().std(correction=0)
    torch.testing.assert_close(weights, torch.exp(-z) / torch.exp(-z).mean())
    milder = guard.weights_from(aligned, 5.0)
    assert float(milder.max() - milder.min()) < float(weights.max() - weights.min())
    assert guard.weights_from(torch.tensor([2.0]), 1.0).tolist() == [1.0]


class Level(torch.nn.Module):
    """Predicts one learned constant everywhere: its loss gradient is 2 (constant - mean of the target)."""

    def __init__(self) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(0.0))
        self.config: dict[str, object] = {}

    def forward(self, x: Tensor, t: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (self.level.expand_as(x),)


def test_an_image_like_the_rest_is_spared() -> None:
    """Bright images stay; of the group's, the bright one is needed and the dark one is not."""
    images = torch.full((COUNT, 1, 8, 8), 230, dtype=torch.uint8)
    images[2] = 25
    p = dataclasses.replace(
        problem("neggrad", make_schedule("linear", 60, "sample")), images=images, forget=mask(0, 2)
    )
    weights = guard.guard_weights(UNetDenoiser(Level(), p.schedule), p)
    assert weights[0] < 1 < weights[2]
    assert weights[p.forget].mean() == pytest.approx(1.0)
    assert (weights[~p.forget] == 1).all()


def test_weights_are_seeded_and_leave_the_model_alone() -> None:
    denoiser = make_denoiser(make_schedule("linear", 60))
    before = {name: value.clone() for name, value in denoiser.network.state_dict().items()}
    one, two = (guard.guard_weights(denoiser, case()) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, guard.guard_weights(denoiser, case(seed=1)))
    assert all(torch.equal(before[n], v) for n, v in denoiser.network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in denoiser.network.parameters())


def test_guard_changes_a_run_and_only_then() -> None:
    runs = {}
    for on in (False, True):
        p = case(guard=on, steps=2)
        runs[on] = unlearn(make_denoiser(p.schedule), p, hooks=loop.Hooks())
    assert any(not torch.equal(runs[True][name], runs[False][name]) for name in runs[True])
