"""Small schedules, networks and images for the tests of the numerical parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.diffusion.schedule import Schedule, from_config
from guda_cli.families.pixels import Pixels, UNetDenoiser

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
CONFIG: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    "add_attention": False,
    "dropout": 0.0,
}


@pytest.fixture(autouse=True)
def quick_cpu() -> Iterator[None]:
    """One thread and no denormals: tiny networks gain nothing from more, and rounding stays put."""
    torch.set_flush_denormal(True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_schedule(
    beta_schedule: str = "squaredcos_cap_v2",
    T: int = 50,
    prediction: str = "epsilon",
    zero_snr: bool = False,
) -> Schedule:
    return from_config(
        {
            "num_train_timesteps": T,
            "beta_schedule": beta_schedule,
            "prediction_type": prediction,
            "rescale_betas_zero_snr": zero_snr,
        }
    )


def make_unet(seed: int = 0, **changes: Any) -> torch.nn.Module:
    return Pixels().build({**CONFIG, **changes}, seed)


def make_denoiser(schedule: Schedule | None = None, seed: int = 0, **changes: Any) -> UNetDenoiser:
    return UNetDenoiser(make_unet(seed, **changes).eval(), schedule or make_schedule())


class FunctionDenoiser:
    """A denoiser made of a function of (x_t, t)."""

    def __init__(self, schedule: Schedule, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.schedule, self.function, self.device = schedule, function, torch.device("cpu")

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.function(x_t, t)


def wavy(x_t: Tensor, t: Tensor) -> Tensor:
    """A prediction that is neither linear nor the same at every t, computed pixel by pixel."""
    return 0.7 * x_t + 0.4 * torch.sin(3.0 * x_t + 0.1 * t.view(-1, 1, 1, 1).to(x_t.dtype))


def bytes_images(count: int, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> Tensor:
    """uint8 images [count, C, H, W] of uniform noise."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, *shape), dtype=np.uint8))


def float_images(count: int, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> Tensor:
    """The same as float32 in [-1, 1]."""
    return bytes_images(count, shape, seed).float() / 127.5 - 1.0


def double_batch(
    count: int, seed: int = 0, shape: tuple[int, ...] = (2, 3, 3)
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean images, noise and raw predictions [count, ...], all float64."""
    rng = np.random.default_rng(seed)
    x0 = torch.from_numpy(rng.uniform(-1, 1, (count, *shape)))
    noise, raw = (torch.from_numpy(rng.standard_normal((count, *shape))) for _ in range(2))
    return x0, noise, raw
