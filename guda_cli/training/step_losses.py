"""Losses and gradients of steps, read together: on a GPU every reading waits for all work that it has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STEPS, SECONDS = 16, 0.5
"""A GPU's are read after so many steps, or after the first one that ends this long after the last reading."""


class Reading(NamedTuple):
    """What is known of a step: its loss and the length of its gradient before it was cut."""

    step: int
    loss: float
    norm: float


class Readings:
    """Notes steps, and gives them back as numbers once they are `due`; on a CPU that is at once."""

    def __init__(self, device: torch.device, *, at_once: bool = False) -> None:
        """`at_once` where each step is to be known before its weights move."""
        self._wait = device.type != "cpu" and not at_once
        self._noted: list[tuple[int, list[Tensor]]] = []
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to `take` them."""
        late = time.monotonic() - self._last >= SECONDS
        return not self._wait or len(self._noted) >= STEPS or late

    def add(self, step: int, losses: Sequence[Tensor], norm: Tensor) -> None:
        """Note a step's summands of its loss, and its gradient's length; all are scalars."""
        self._noted.append((step, [*losses, norm]))

    def take(self) -> list[Reading]:
        """What has been noted since the last call, in one reading of the device."""
        noted, self._noted = self._noted, []
        self._last = time.monotonic()
        if not noted:
            return []
        values = iter(torch.stack([value for _, step in noted for value in step]).tolist())
        return [_reading(step, [next(values) for _ in scalars]) for step, scalars in noted]


def _reading(step: int, values: list[float]) -> Reading:
    *losses, norm = values
    total = 0.0
    for loss in losses:  # `sum` rounds otherwise from Python 3.12 on
        total += loss
    return Reading(step, total, norm)
