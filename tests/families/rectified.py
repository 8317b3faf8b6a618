"""A family that the program does not have: a small transformer on pixels that learns a flow.

As a new family would, it says in one file all that is peculiar to it: its network and configuration, what
the network predicts (the flow from image to noise, Liu et al. 2023) and at what levels of noise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import save_file
from torch import Tensor, nn

from guda_cli.checkpoints.components import PartsRead
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.schedule import Schedule
from guda_cli.errors import DataError
from guda_cli.families.family import Family, Taken, Traits, Wanted
from guda_cli.sections import Recipe

PATCH = 2


class SmallTransformer(nn.Module):
    """Patches of an image [N, C, S, S] with their places, one after the other, told the level of noise."""

    def __init__(self, channels: int, size: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, PATCH, PATCH)
        self.place = nn.Parameter(0.1 * torch.randn((size // PATCH) ** 2, width))
        self.level = nn.Linear(1, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.attention = nn.ModuleList(Attention(width, heads=2, dim_head=width // 2) for _ in range(layers))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(layers)
        )
        self.out = nn.ConvTranspose2d(width, channels, PATCH, PATCH)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        patches = self.embed(x)
        h = patches.flatten(2).transpose(1, 2) + self.place + self.level(sigma[:, None])[:, None]
        for norm, attention, feed in zip(self.norms, self.attention, self.feed, strict=True):
            h = h + attention(norm(h))
            h = h + feed(h)
        return self.out(h.transpose(1, 2).unflatten(2, patches.shape[2:]))


class FlowDenoiser:
    """The adapter: times become levels of noise."""

    def __init__(self, network: nn.Module, schedule: Schedule) -> None:
        first = next(network.parameters())
        self.network, self.schedule, self.null = network, schedule, None
        self.device, self.dtype = first.device, first.dtype
        self.sigma = torch.from_numpy(schedule.sigma).float().to(first.device)

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        if cond is not None:
            raise ValueError("a condition was given to an unconditional network")
        found: Tensor = self.network(x_t.to(self.dtype), self.sigma[t].to(self.dtype)).float()
        return found


class Rectified(Family):
    name = "rectified"
    network = "transformer"

    def configs(
        self, recipe: Recipe, shape: tuple[int, int, int], groups: Iterable[str] = ()
    ) -> dict[str, Any]:
        width = recipe.model.block_out_channels[0]
        network = {"channels": shape[0], "size": shape[1], "width": width, "layers": 2}
        scheduler = {"num_train_timesteps": recipe.diffusion.num_train_timesteps, "shift": 2.0}
        return {"transformer": network, "scheduler": scheduler}

    def traits(self, config: Mapping[str, Any], told: str) -> Traits:
        return Traits(told, attention=True)

    def prediction(self, config: Mapping[str, Any]) -> str:
        return "flow"

    def schedule(self, config: Mapping[str, Any]) -> Schedule:
        """Evenly from image to noise, shifted towards noise (Esser et al. 2024, eq. 23)."""
        T, shift = int(config["num_train_timesteps"]), float(config["shift"])
        even = np.linspace(0.0, 1.0, T + 1)
        sigma = shift * even / (1.0 + (shift - 1.0) * even)
        return Schedule.from_levels(1.0 - sigma, sigma, "flow")

    def build(self, config: Mapping[str, Any], seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return SmallTransformer(**config)

    def denoiser(self, network: nn.Module, schedule: Schedule, bank: Any = None) -> FlowDenoiser:
        return FlowDenoiser(network, schedule)

    def width(self, config: Mapping[str, Any]) -> int:
        return int(config["width"])

    def learned_variance(self, config: Mapping[str, Any]) -> bool:
        return False

    def take(self, source: str, beside: str | None, wanted: Wanted) -> Taken:
        raise DataError(f"{source}: nobody else has such models")

    def write(self, folder: Path, weights: Weights, config: Mapping[str, Any], parts: PartsRead) -> None:
        save_file(dict(weights), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
