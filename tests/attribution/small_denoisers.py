"""Denoisers of a few dozen parameters, whose gradients can be written out or looped over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from guda_cli.diffusion.schedule import Schedule
from tests.diffusion.tiny import make_schedule


class SmallDenoiser:
    """A denoiser around any module of (x_t, t, cond)."""

    def __init__(self, net: nn.Module, schedule: Schedule | None = None) -> None:
        self.network, self.schedule = net.eval(), schedule or make_schedule()
        self.device, self.null = torch.device("cpu"), None

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        out: Tensor = self.network(x_t, t, cond)
        return out


class Affine(nn.Module):
    """W x + b on the flattened image: n^2 + n parameters, gradients known in closed form."""

    def __init__(self, pixels: int = 4, seed: int = 0) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.5 * torch.randn(pixels, pixels, generator=draws))
        self.bias = nn.Parameter(0.5 * torch.randn(pixels, generator=draws))

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return (x_t.flatten(1) @ self.weight.T + self.bias).view_as(x_t)


class Wavy(nn.Module):
    """Two convolutions with a normalisation, a nonlinearity, the time and a class between them."""

    def __init__(self, seed: int = 0, dropout: float = 0.5) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.norm = nn.GroupNorm(1, 2)
        self.shift = nn.Embedding(3, 2)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Conv2d(2, 1, 3, padding=1)
        draws = torch.Generator().manual_seed(seed)
        for value in self.parameters():
            nn.init.normal_(value, std=0.5, generator=draws)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        h = self.norm(self.first(x_t)) + torch.sin(0.1 * t.to(x_t.dtype)).view(-1, 1, 1, 1)
        if cond is not None:
            h = h + self.shift(cond)[:, :, None, None]
        out: Tensor = self.last(self.drop(torch.tanh(h)))
        return out


class Identity:
    """A projection that leaves gradients as they are."""

    def __init__(self, parameters: int) -> None:
        self.parameters = self.dims = parameters

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)
