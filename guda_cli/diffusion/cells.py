"""Noised cells: images at a timestep with a draw of noise, in batches.

A cell is (image row, digest, t, draw). Its noise depends on (digest, seed, t, draw) alone (`QueryNoise`),
never on the batch it is computed in, on the other images or on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from guda_cli import memory
from guda_cli.diffusion.denoiser import add_noise, to_x0, training_target
from guda_cli.diffusion.noise import QueryNoise
from guda_cli.diffusion.schedule import Schedule
from guda_cli.phrases import plural


class Place(Protocol):
    """Where images are noised and how far: a denoiser, or a network made of one."""

    schedule: Schedule
    device: torch.device


class Cell(NamedTuple):
    """One forward: the image's row, the digest of its pixels, t in 1..T and the number of the draw."""

    row: int
    digest: str
    t: int
    draw: int


@dataclass(frozen=True, eq=False)
class Samples:
    """Images [N, C, H, W] (see `to_x0`), the digest of each's pixels, and conditions [N, ...] if any."""

    images: Tensor
    digests: tuple[str, ...]
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.digests)

    def rows(self, indices: Sequence[int]) -> Samples:
        """Those at `indices`, in that order."""
        where = torch.as_tensor(indices, dtype=torch.int64)
        labels = None if self.labels is None else self.labels[where]
        return Samples(self.images[where], tuple(self.digests[int(i)] for i in where), labels)


@dataclass(frozen=True, eq=False)
class Noised:
    """A batch of B noised images: x0, noise and x_t [B, C, H, W], t [B] and conditions [B, ...] if any.

    `rows` [B] (on the CPU) are the images' rows, `where` the batch's place among all cells.
    """

    schedule: Schedule
    rows: Tensor
    x0: Tensor
    noise: Tensor
    x_t: Tensor
    t: Tensor
    cond: Tensor | None
    where: slice

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def target(self) -> Tensor:
        """What the network's own prediction is trained towards [B, C, H, W]."""
        return training_target(self.schedule, self.x0, self.noise, self.t)


_CELL = 200  # bytes of one in a list, and of what it is made of


def cells(
    digests: Sequence[str],
    timesteps: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64] | None = None,
    *,
    by_time: bool = False,
) -> list[Cell]:
    """Every cell of `timesteps` [draws, n], image by image.

    `numbers` [draws, n] are those of the noises, the row's own where left out. Within an image draw by draw;
    with `by_time` timestep by timestep, each with all its draws.
    """
    draws, n = timesteps.shape
    what = f"{plural(len(digests), 'image', 'images')} at {n:,} timesteps in {draws:,} draws"
    memory.check(_CELL * len(digests) * draws * n, what, fix="fewer draws, or fewer timesteps")
    pairs = [(d, j) for d in range(draws) for j in range(n)]
    if by_time:
        pairs = [(d, j) for j in range(n) for d in range(draws)]
    inner = [(int(timesteps[d, j]), d if numbers is None else int(numbers[d, j])) for d, j in pairs]
    return [Cell(i, digest, t, d) for i, digest in enumerate(digests) for t, d in inner]


def noised(
    place: Place,
    images: Tensor,
    cond: Tensor | None,
    rows: Sequence[int] | Tensor,
    t: Tensor,
    noise: Tensor,
    where: slice = slice(0, 0),
) -> Noised:
    """`images[rows]` (see `to_x0`), of conditions `cond[rows]`, noised to `t` [B] with `noise` [B, C, H, W].

    All on the place's device, but `rows`.
    """
    at = torch.as_tensor(rows, dtype=torch.int64)
    x0 = to_x0(images[at]).to(place.device)
    t, noise = t.to(place.device), noise.to(place.device)
    x_t = add_noise(place.schedule, x0, noise, t)
    given = None if cond is None else cond[at].to(place.device)
    return Noised(place.schedule, at, x0, noise, x_t, t, given, where)


def batches(
    place: Place, samples: Samples, jobs: Sequence[Cell], *, seed: int, batch_size: int
) -> Iterator[Noised]:
    """The cells `jobs` of `samples` in their order, `batch_size` at a time."""
    noises, shape = QueryNoise(seed), samples.images.shape[1:]
    for start in range(0, len(jobs), batch_size):
        part = jobs[start : start + batch_size]
        noise = noises.fill(torch.empty(len(part), *shape), [(c.digest, c.t, c.draw) for c in part])
        t = torch.tensor([cell.t for cell in part])
        rows, where = [cell.row for cell in part], slice(start, start + len(part))
        yield noised(place, samples.images, samples.labels, rows, t, noise, where)
