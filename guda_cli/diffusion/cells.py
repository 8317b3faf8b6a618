"""Noised cells: images at a timestep with a draw of noise, in batches.

A cell is (image row, digest, t, draw). Its noise depends on (digest, seed, t, draw) alone (`QueryNoise`),
never on the batch it is computed in, on the other images or on the device.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from guda_cli import memory
from guda_cli.diffusion.ahead import ahead
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

    def to(self, device: torch.device) -> Samples:
        """The same with images and conditions on `device`."""
        labels = None if self.labels is None else self.labels.to(device)
        return Samples(self.images.to(device), self.digests, labels)


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

    @property
    def tensors(self) -> list[Tensor]:
        """Those on the place's device."""
        found = [self.x0, self.noise, self.x_t, self.t]
        return found if self.cond is None else [*found, self.cond]

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


class Kept:
    """Noise of the batches that were asked for last, on the place's device: all models see the same.

    One for each engine, of one device and network. Batches used longest ago go first where there are more
    than `most` bytes.
    """

    def __init__(self, most: int = 128 << 20) -> None:
        self.most, self._bytes = most, 0
        self._noise: OrderedDict[object, Tensor] = OrderedDict()

    def get(self, key: object) -> Tensor | None:
        """What was put there, if it is there still."""
        found = self._noise.get(key)
        if found is not None:
            self._noise.move_to_end(key)
        return found

    def put(self, key: object, noise: Tensor) -> None:
        """Keep the noise of a batch."""
        self._noise[key] = noise
        self._bytes += noise.nbytes
        while self._bytes > self.most:
            self._bytes -= self._noise.popitem(last=False)[1].nbytes


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
    x0 = to_x0(images[at.to(images.device)]).to(place.device)
    t, noise = t.to(place.device), noise.to(place.device)
    x_t = add_noise(place.schedule, x0, noise, t)
    given = None if cond is None else cond[at.to(cond.device)].to(place.device)
    return Noised(place.schedule, at, x0, noise, x_t, t, given, where)


def batches(
    place: Place,
    samples: Samples,
    jobs: Sequence[Cell],
    *,
    seed: int,
    batch_size: int,
    kept: Kept | None = None,
) -> Iterator[Noised]:
    """The cells `jobs` of `samples` in their order, `batch_size` at a time; their noise is left with `kept`.

    Beside a device the next batch is made while it works. On a CPU that would take the network's own core.
    """
    made = _made(place, samples, jobs, seed, batch_size, kept)
    return made if place.device.type == "cpu" else ahead(made, place.device)


def _made(
    place: Place, samples: Samples, jobs: Sequence[Cell], seed: int, batch_size: int, kept: Kept | None
) -> Iterator[Noised]:
    noises, shape = QueryNoise(seed), tuple(samples.images.shape[1:])
    pinned = place.device.type == "cuda"  # what lies in pinned memory is copied beside the network's work
    for start in range(0, len(jobs), batch_size):
        part = jobs[start : start + batch_size]
        drawn = tuple((cell.digest, cell.t, cell.draw) for cell in part)
        key = seed, shape, drawn
        noise = kept.get(key) if kept is not None else None
        if noise is None:
            empty = torch.empty(len(part), *shape, pin_memory=pinned)
            noise = noises.fill(empty, drawn).to(place.device, non_blocking=pinned)
            if kept is not None:
                kept.put(key, noise)
        t = torch.tensor([cell.t for cell in part])
        rows, where = [cell.row for cell in part], slice(start, start + len(part))
        yield noised(place, samples.images, samples.labels, rows, t, noise, where)
