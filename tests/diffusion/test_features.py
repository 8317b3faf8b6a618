"""Features of a network's last blocks: which blocks, what is pooled, at which noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guda_cli.diffusion import features
from guda_cli.diffusion.cells import Samples, batches, cells
from tests.diffusion.tiny import BETA_SCHEDULES, make_denoiser, make_schedule

pytestmark = pytest.mark.usefixtures("quick_cpu")


class Blocks(nn.Module):
    """Doubles its input, then gives text beside tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.ModuleList([nn.Identity()])
        self.late = nn.ModuleList([Double(), Tokens()])

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.early, *self.late):
            x = block(x)
        return x[1]


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x


class Tokens(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(x), 3, 2), 9.0), x.flatten(2).transpose(1, 2) + 1.0


class Denoiser:
    null = None

    def __init__(self) -> None:
        self.network, self.schedule, self.device = Blocks(), make_schedule(), torch.device("cpu")

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.network(x_t)


def test_means_and_deviations_of_maps_and_of_tokens() -> None:
    """Of the last list's blocks 2 x_t and, as tokens beside text, 2 x_t + 1, mean over two noises."""
    denoiser = Denoiser()
    x0 = torch.linspace(-1, 1, 2 * 2 * 4 * 4).view(2, 2, 4, 4)
    found = features.features(denoiser, x0, ["a", "b"], draws=2, seed=3, batch_size=3)
    t = features.timestep(denoiser.schedule)
    jobs = cells(["a", "b"], np.full((2, 1), t))
    [batch] = batches(denoiser, Samples(x0, ("a", "b")), jobs, seed=3, batch_size=9)
    x_t = batch.x_t.view(2, 2, 2, 16).double()
    mean, deviation = 2 * x_t.mean(3), 2 * x_t.std(3, correction=0)
    want = torch.cat([mean, deviation, mean + 1.0, deviation], dim=2).mean(1)
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-5)


@pytest.mark.parametrize("schedule", BETA_SCHEDULES)
def test_noise_is_a_third_of_the_signal(schedule: str) -> None:
    made = make_schedule(schedule, T=1000)
    t = features.timestep(made)
    assert made.sigma[t] / made.signal[t] == pytest.approx(1 / 3, rel=0.02)


def test_a_unets_blocks_are_those_that_lead_up() -> None:
    network = make_denoiser().network
    assert features.last_blocks(network) == list(network.up_blocks)


def test_of_many_blocks_a_few_are_taken_the_last_among_them() -> None:
    network = nn.Module()
    network.blocks = nn.ModuleList(nn.Identity() for _ in range(10))
    found = features.last_blocks(network)
    assert [list(network.blocks).index(block) for block in found] == [1, 4, 7, 9]
    bare = nn.Linear(2, 2)
    assert features.last_blocks(bare) == [bare]


def test_neither_the_batch_nor_its_neighbours_matter() -> None:
    denoiser = make_denoiser()
    x0 = torch.rand(3, 1, 8, 8) * 2 - 1
    together = features.features(denoiser, x0, ["a", "b", "c"], draws=4, seed=0, batch_size=12)
    alone = features.features(denoiser, x0[1:2], ["b"], draws=4, seed=0, batch_size=1)
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-4, atol=1e-5)
    assert not denoiser.network.up_blocks[0]._forward_hooks
