"""Training losses of images at fixed (t, draw) cells, under weights that may differ from the network's.

The network is never written to: other weights are put in its place for one call
(`torch.func.functional_call`), so it leaves every function here bit for bit as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from guda_cli.diffusion import grid
from guda_cli.diffusion.denoiser import add_noise, to_x0, training_target
from guda_cli.diffusion.elbo import cells
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.noise import QueryNoise, generator
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.errors import DataError

Weights = Mapping[str, Tensor]


class Parametric(Protocol):
    """A denoiser whose weights are those of the module `network` (a `UNetDenoiser`)."""

    schedule: Schedule
    device: torch.device
    network: torch.nn.Module

    @property
    def predict(self) -> Callable[..., Tensor]:
        """`Denoiser.predict(x_t, t)`; with class labels `predict(x_t, t, labels)`."""
        ...


class Network(torch.nn.Module):
    """`predict` of a denoiser as a module's forward, so that its weights can be exchanged for a call."""

    def __init__(self, denoiser: Parametric) -> None:
        super().__init__()
        self.network, self.denoiser, self.schedule = denoiser.network, denoiser, denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The raw prediction for x_t [B, C, H, W] at t [B] (and class `labels` [B])."""
        return self.denoiser.predict(x_t, t) if labels is None else self.denoiser.predict(x_t, t, labels)

    def weights(self, keep: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """The parameters whose name (as in `network`) `keep` accepts, detached; DataError when none is."""
        found = {name: p.detach() for name, p in self.network.named_parameters() if keep(name)}
        if not found:
            raise DataError("the parameter subset holds no parameter of this network", fix="--params full")
        return found

    def predict(self, weights: Weights, *inputs: Tensor | None) -> Tensor:
        """`forward` with `weights` in place of the parameters of those names."""
        swapped = {f"network.{name}": value for name, value in weights.items()}
        out: Tensor = functional_call(self, swapped, inputs)
        return out


@dataclass(frozen=True, eq=False)
class Samples:
    """Images [N, C, H, W], uint8 or latents, the digest of each's pixels and labels [N], if there are any."""

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
class Rows:
    """Inputs of one forward and what it should say: each [B, ...]."""

    x_t: Tensor
    t: Tensor
    target: Tensor
    labels: Tensor | None


def levels(T: int, n: int, draws: int, seed: int, lowest: float = 0.0) -> Grid:
    """`draws` x `n` timesteps of 1..T above `lowest` * T, one seeded index in each of n equal strata."""
    offset = round(lowest * T)
    inner = grid.build(grid.spec("strata", n, draws, seed), T - offset)
    spec = {**inner.spec, "lowest": lowest}
    return Grid(inner.timesteps + offset, inner.widths, inner.unbiased and not offset, spec)


def noisy(
    network: Network, samples: Samples, indices: Sequence[int] | Tensor, t: Tensor, noise: Tensor
) -> Rows:
    """Rows of `samples[indices]` [B] noised to `t` [B] with `noise` [B, C, H, W], on the network's device."""
    device, schedule = network.denoiser.device, network.schedule
    where = torch.as_tensor(indices, dtype=torch.int64)
    x0 = to_x0(samples.images[where]).to(device)
    t, noise = t.to(device), noise.to(device)
    labels = None if samples.labels is None else samples.labels[where].to(device)
    return Rows(add_noise(schedule, x0, noise, t), t, training_target(schedule, x0, noise, t), labels)


def batches(
    network: Network, samples: Samples, at: Grid, *, seed: int, batch_size: int
) -> Iterator[tuple[slice, Rows]]:
    """All cells of `samples` in the order of `elbo.cells`, in batches: (which cells, their rows).

    The noise of a cell is a pure function of (digest, seed, t, draw): see `QueryNoise`.
    """
    jobs, noises = cells(samples.digests, at), QueryNoise(seed)
    for start in range(0, len(jobs), batch_size):
        part = jobs[start : start + batch_size]
        noise = noises.fill(
            torch.empty(len(part), *samples.images.shape[1:]), [(digest, t, d) for _, digest, t, d in part]
        )
        t = torch.tensor([t for _, _, t, _ in part])
        yield slice(start, start + len(part)), noisy(network, samples, [i for i, *_ in part], t, noise)


def row_losses(network: Network, weights: Weights, rows: Rows) -> Tensor:
    """Mean squared error per pixel [B] of the network's own prediction type, under `weights`."""
    raw = network.predict(weights, rows.x_t, rows.t, rows.labels)
    return (raw - rows.target).square().flatten(1).mean(1)


@torch.no_grad()
def cell_losses(
    network: Network, weights: Weights, samples: Samples, at: Grid, *, seed: int, batch_size: int
) -> Array:
    """Losses under `weights`, float64 [N, draws, n]. The same cells give the same noise to every model."""
    out = torch.empty(len(samples) * at.rows, dtype=torch.float64)
    with evaluating(network):
        for where, rows in batches(network, samples, at, seed=seed, batch_size=batch_size):
            out[where] = row_losses(network, weights, rows).cpu().double()
    return out.view(len(samples), *at.timesteps.shape).numpy()


def mean_over_cells(values: Array, at: Grid) -> Array:
    """Mean over draws and over t (strata count by their width) of `values` [N, draws, n]: [N]."""
    return np.asarray(values.mean(axis=1) @ (at.widths / at.widths.sum()))


def cell_weights(at: Grid) -> Tensor:
    """What each cell of one image counts in `mean_over_cells`: float32 [draws * n], sum 1."""
    share = at.widths / at.widths.sum() / len(at.timesteps)
    return torch.from_numpy(np.tile(share, len(at.timesteps))).float()


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """No dropout inside; every module's mode as before afterwards."""
    modes = [(module, module.training) for module in network.network.modules()]
    network.network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def subset(digests: Sequence[str], size: int | None, seed: int) -> list[int]:
    """`size` seeded indices of the training images (all when None or too many), ascending.

    Which images are taken depends on their digests, not on their order; copies are told apart by it.
    """
    if size is None or size >= len(digests):
        return list(range(len(digests)))
    ranks = torch.randperm(len(digests), generator=generator("guda.subset/1", seed)).tolist()
    by_digest = sorted(range(len(digests)), key=lambda i: (digests[i], i))
    return sorted(by_digest[rank] for rank in ranks[:size])


@dataclass(frozen=True)
class QueryScores:
    """Scores float64 [N] of the training images for one query.

    `forwards` are network forward-equivalents spent on this query (a backward counts 2); `facts` say what
    the method did (numbers only).
    """

    scores: Array
    forwards: float
    facts: Mapping[str, float]
