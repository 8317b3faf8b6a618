"""Moving what was drawn or read on the CPU to where networks run."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """`values` on `device`: to a GPU without waiting for the work that it still has.

    A plain copy from ordinary memory would wait for all of it, several times a step.
    """
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
