"""Networks small enough for exact answers, and one that has learnt something."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from guda_cli.data.images import pixels_digest
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.functional import FunctionalNetwork
from guda_cli.diffusion.schedule import Schedule
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.sections import TrainSpec
from guda_cli.training import loop
from guda_cli.training.train import train
from tests.diffusion.tiny import make_schedule, make_unet

T = 50


class Pixelwise(torch.nn.Module):
    """eps_theta = a * x_t with one float64 weight a pixel: the loss is quadratic, its Hessian diagonal."""

    def __init__(self, shape: tuple[int, ...] = (1, 2, 2)) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.linspace(0.1, 0.9, int(np.prod(shape))).double().view(shape))

    def forward(self, x_t: Tensor) -> Tensor:
        return self.gain * x_t.double()


class PixelwiseDenoiser:
    def __init__(self, schedule: Schedule | None = None) -> None:
        self.schedule, self.device = schedule or make_schedule(T=T), torch.device("cpu")
        self.network: torch.nn.Module = Pixelwise()

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.network(x_t)
        return out


class Counting(UNetDenoiser):
    """Counts forward-equivalents: a row that a gradient will be taken through counts three."""

    spent = 0.0

    def predict(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        out = super().predict(x_t, t)
        self.spent += len(x_t) * (3.0 if out.requires_grad else 1.0)
        return out


def samples_of(pixels: np.ndarray) -> Samples:
    return Samples(torch.from_numpy(pixels), tuple(pixels_digest(image) for image in pixels))


def random_samples(count: int, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return samples_of(rng.integers(0, 256, (count, *shape), dtype=np.uint8))


@cache
def kinds(count: int = 24, seed: int = 0) -> Samples:
    """Images of two kinds in turn, dark bars across or along, each with a little noise of its own."""
    rng = np.random.default_rng(seed)
    bars = np.zeros((2, 1, 8, 8))
    bars[0, :, ::2], bars[1, :, :, ::2] = 200, 200
    noise = rng.integers(0, 50, (count, 1, 8, 8))
    return samples_of((bars[np.arange(count) % 2] + noise).astype(np.uint8))


@cache
def _learnt_weights() -> dict[str, Tensor]:
    torch.set_num_threads(1)
    spec = TrainSpec(steps=100, batch_size=32, lr=5e-3, warmup_steps=10, lr_schedule="cosine", ema_decay=0.0)
    return train(UNetDenoiser(make_unet(), make_schedule(T=T)), kinds().images, spec, hooks=loop.Hooks())


def learnt(kind: type[UNetDenoiser] = UNetDenoiser) -> FunctionalNetwork:
    """A UNet trained on `kinds()` for a few seconds (once)."""
    unet = make_unet()
    unet.load_state_dict(_learnt_weights())
    return FunctionalNetwork(kind(unet, make_schedule(T=T)))


def untrained() -> FunctionalNetwork:
    return FunctionalNetwork(UNetDenoiser(make_unet(7), make_schedule(T=T)))


def bits(network: FunctionalNetwork) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in network.network.state_dict().items()}
