"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor


def ema_decay(step: int, limit: float) -> float:
    """The decay after `step` updates: (1 + step) / (10 + step), at most `limit`."""
    return min(limit, (1.0 + step) / (10.0 + step))


@torch.no_grad()
def ema_update(average: list[Tensor], weights: list[Tensor], decay: float) -> None:
    """average <- decay * average + (1 - decay) * weights, in place."""
    torch._foreach_lerp_(average, weights, 1.0 - decay)
