"""The order in which training sees images, timesteps and noise: a pure function of (seed, step).

Nothing here has state, so a resumed run needs no random state, and runs that leave a group out draw
the very same numbers for all other images (docs/methods.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import to_x0
from guda_cli.diffusion.noise import generator
from guda_cli.diffusion.transfer import sent


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's draw: image `indices` [B], `t` [B] (1..T), `noise` [B, C, H, W], `flip` [B] bool."""

    indices: Tensor
    t: Tensor
    noise: Tensor
    flip: Tensor

    def take(self, rows: Tensor) -> Batch:
        """The entries `rows` [n] alone."""
        return Batch(self.indices[rows], self.t[rows], self.noise[rows], self.flip[rows])


class Stream:
    """Seeded epochs over `count` images, or over those that `keep` [count] marks."""

    def __init__(
        self,
        count: int,
        batch_size: int,
        T: int,
        shape: tuple[int, ...],
        seed: int,
        *,
        keep: Tensor | None = None,
    ) -> None:
        self.count, self.batch_size, self.T, self.shape, self.seed = count, batch_size, T, shape, seed
        self.keep = keep
        self.epoch_size = count if keep is None else int(keep.sum())
        self._epoch: tuple[int, Tensor] | None = None

    def at(self, step: int) -> Batch:
        """The batch of `step` (0, 1, ...)."""
        indices = self.indices(step)
        g = generator("guda.stream/1", self.seed, step)
        t = torch.randint(1, self.T + 1, (self.batch_size,), generator=g)
        flip = torch.rand(self.batch_size, generator=g) < 0.5
        noise = torch.randn(self.batch_size, *self.shape, generator=g)
        return Batch(indices, t, noise, flip)

    def indices(self, step: int) -> Tensor:
        """Which images `step` shows, int64 [B]."""
        first = step * self.batch_size
        return torch.cat(self._indices(first, first + self.batch_size))

    def unlabelled(self, step: int, share: float) -> Tensor:
        """Which entries [B] of `step` are shown without their class: each with probability `share`.

        Drawn apart from the rest of the batch, which is the same with and without classes.
        """
        g = generator("guda.class-dropout/1", self.seed, step)
        return torch.rand(self.batch_size, generator=g, dtype=torch.float64) < share

    def _indices(self, first: int, last: int) -> list[Tensor]:
        parts = []
        while first < last:
            epoch, offset = divmod(first, self.epoch_size)
            stop = min(self.epoch_size, offset + last - first)
            parts.append(self._permutation(epoch)[offset:stop])
            first += stop - offset
        return parts

    def _permutation(self, epoch: int) -> Tensor:
        if self._epoch is None or self._epoch[0] != epoch:
            order = torch.randperm(self.count, generator=generator("guda.epoch/1", self.seed, epoch))
            self._epoch = (epoch, order if self.keep is None else order[self.keep[order]])
        return self._epoch[1]


def clean(images: Tensor, batch: Batch, *, flip: bool, device: torch.device | None = None) -> Tensor:
    """The batch's x0 [B, C, H, W], float32, from uint8 `images` or latents (`to_x0`).

    On `device`, where uint8 pixels are sent as they are.
    """
    x = images[batch.indices]
    x = to_x0(x if device is None else sent(x, device))
    return oriented(x, batch.flip) if flip else x


def oriented(images: Tensor, flip: Tensor) -> Tensor:
    """`images` [B, ..., W], mirrored left to right where `flip` [B] is True."""
    return torch.where(sent(flip, images.device).view(-1, *[1] * (images.dim() - 1)), images.flip(-1), images)
