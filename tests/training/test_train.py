"""Training a tiny network: it learns, leaves groups out, resumes bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.families.pixels import UNetDenoiser
from guda_cli.sections import TrainSpec, total_steps
from guda_cli.training import loop
from guda_cli.training.run_state import RunState
from guda_cli.training.stream import Stream
from guda_cli.training.train import train
from guda_cli.unlearning.check import losses
from tests.diffusion.tiny import PREDICTIONS, bytes_images, make_schedule, make_unet

SPEC = TrainSpec(
    steps=5, batch_size=4, lr=2e-3, lr_schedule="cosine", warmup_steps=1, ema_decay=0.9, flip=True, seed=1
)


def run(
    resume: RunState | None = None, hooks: loop.Hooks | None = None, keep: Tensor | None = None
) -> dict[str, Tensor]:
    return train(
        UNetDenoiser(make_unet(dropout=0.2), make_schedule()), bytes_images(16), SPEC,
        keep=keep, resume=resume, hooks=hooks or loop.Hooks(),
    )  # fmt: skip


def test_resumed_at_every_save_ends_in_the_same_bits() -> None:
    states: dict[int, bytes] = {}

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    whole = run(hooks=loop.Hooks(save=save, save_seconds=0.0))
    assert sorted(states) == [1, 2, 3, 4]
    for step, data in states.items():
        again = run(RunState.from_bytes(step, data))
        for name, value in whole.items():
            assert torch.equal(again[name], value), (step, name)


@pytest.mark.parametrize(
    ("epochs", "steps", "images", "expected"),
    [
        (40.0, None, 1797, 562),
        (1.0, None, 128, 1),
        (1.0, None, 129, 2),
        (0.001, None, 10, 1),
        (40.0, 7, 1797, 7),
    ],
)
def test_total_steps(epochs: float, steps: int | None, images: int, expected: int) -> None:
    spec = TrainSpec(epochs=epochs, steps=steps, batch_size=128)
    assert total_steps(spec, images) == expected
    assert total_steps(spec, images) == expected


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_falls_on_a_small_set(prediction: str) -> None:
    """Flat images of two brightnesses are learnt in a few steps; a step's loss is noisy, so means count."""
    rng = np.random.default_rng(0)
    flat = np.where(np.arange(16) % 2, 220, 30).reshape(16, 1, 1, 1) + rng.integers(-9, 9, (16, 1, 8, 8))
    images = torch.from_numpy(flat.astype(np.uint8))
    told: list[float] = []
    spec = TrainSpec(steps=40, batch_size=8, lr=5e-3, warmup_steps=5, ema_decay=0.8)
    schedule = make_schedule(prediction=prediction)
    unet = make_unet()
    rows = torch.arange(16).repeat(8)
    before = losses(UNetDenoiser(unet.eval(), schedule), images, rows).mean()
    weights = train(UNetDenoiser(unet, schedule), images, spec, hooks=loop.Hooks(on_step=told.append))
    unet.load_state_dict(weights)
    after = losses(UNetDenoiser(unet.eval(), schedule), images, rows).mean()
    assert len(told) == 40
    assert np.mean(told[-10:]) < 0.6 * np.mean(told[:10])
    assert after < 0.6 * before


class Probe(torch.nn.Module):
    """Stands for a `UNet2DModel`: keeps what it is shown and says `scale` times x_t."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, index: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        self.seen.append((x.detach().clone(), index))
        return (self.scale * x,)


def test_first_loss_by_hand_without_the_removed_images() -> None:
    images, schedule = bytes_images(10), make_schedule("linear")
    keep = torch.arange(10) % 2 == 0
    spec = dataclasses.replace(SPEC, steps=1, flip=False)
    probe, told = Probe(), []
    denoiser = UNetDenoiser(probe, schedule)
    train(denoiser, images, spec, keep=keep, hooks=loop.Hooks(on_step=told.append))
    batch = Stream(10, 4, schedule.T, (1, 8, 8), seed=1, keep=keep).at(0)
    assert all(i % 2 == 0 for i in batch.indices.tolist())
    ((shown, index),) = probe.seen
    assert torch.equal(index, batch.t - 1)
    abar = np.cumprod(1 - schedule.betas)[batch.t.numpy() - 1].reshape(-1, 1, 1, 1)
    x0 = images[batch.indices].numpy() / 127.5 - 1
    noise = batch.noise.numpy()
    x_t = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise
    np.testing.assert_allclose(shown, x_t, atol=1e-6)
    assert told == [pytest.approx(((0.5 * x_t - noise) ** 2).mean(), rel=1e-5)]


def test_leaving_out_a_group_changes_the_model() -> None:
    whole, part = run(), run(keep=torch.arange(16) < 12)
    assert any(not torch.equal(whole[name], part[name]) for name in whole)
