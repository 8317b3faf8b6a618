"""The stream of an unlearning that shows the group more often than the data do."""

from __future__ import annotations

import torch
from torch import Tensor

from guda_cli.training.stream import Stream


class DosedStream(Stream):
    """The shared stream with the first `dose` entries of every batch replaced by images of `forget` [N].

    Timesteps, noise and the other entries stay the shared stream's, whatever group goes. The group's images
    come in seeded epochs of their own. Of a group that is 1/60 of the data a batch of 8 has one image in
    seven or eight steps; Murata et al. 2026 draw half of each batch from it.
    """

    def __init__(
        self, forget: Tensor, dose: int, batch_size: int, T: int, shape: tuple[int, ...], seed: int
    ) -> None:
        super().__init__(len(forget), batch_size, T, shape, seed)
        self.group = forget.nonzero().flatten()
        self.dose = dose
        self._own = Stream(len(self.group), dose, T, shape, seed)

    def indices(self, step: int) -> Tensor:
        """See `Stream.indices`."""
        own = self.group[self._own.indices(step)]
        return torch.cat([own, super().indices(step)[self.dose :]])
