"""Training losses of images at fixed (t, draw) cells, under weights that may differ from the network's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guda_cli.diffusion import cells, grid
from guda_cli.diffusion.cells import Noised, Samples
from guda_cli.diffusion.denoiser import squared_error
from guda_cli.diffusion.functional import FunctionalNetwork, evaluating
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.schedule import Array


def levels(T: int, n: int, draws: int, seed: int, lowest: float = 0.0) -> Grid:
    """`draws` x `n` timesteps of 1..T above `lowest` * T, one seeded index in each of n equal strata."""
    offset = round(lowest * T)
    inner = grid.build(grid.spec("strata", n, draws, seed), T - offset)
    spec = {**inner.spec, "lowest": lowest}
    return Grid(inner.timesteps + offset, inner.widths, inner.unbiased and not offset, spec, inner.numbers)


def row_losses(network: FunctionalNetwork, weights: Weights, batch: Noised) -> Tensor:
    """Mean squared error per pixel [B] of the network's own prediction type, under `weights`."""
    return squared_error(network.predict(weights, batch.x_t, batch.t, batch.cond), batch.target)


def batches(
    network: FunctionalNetwork, samples: Samples, at: Grid, *, seed: int, batch_size: int
) -> Iterator[Noised]:
    """All cells of `samples` at `at`, image by image, draw by draw, `batch_size` at a time."""
    jobs = cells.cells(samples.digests, at.timesteps)
    return cells.batches(network, samples, jobs, seed=seed, batch_size=batch_size)


@torch.no_grad()
def cell_losses(
    network: FunctionalNetwork, weights: Weights, samples: Samples, at: Grid, *, seed: int, batch_size: int
) -> Array:
    """Losses under `weights`, float64 [N, draws, n]. The same cells give the same noise to every model."""
    out = torch.empty(len(samples) * at.rows, dtype=torch.float64)
    with evaluating(network):
        for batch in batches(network, samples, at, seed=seed, batch_size=batch_size):
            out[batch.where] = row_losses(network, weights, batch).cpu().double()
    return out.view(len(samples), *at.timesteps.shape).numpy()


def mean_over_cells(values: Array, at: Grid) -> Array:
    """Mean over draws and over t (strata count by their width) of `values` [N, draws, n]: [N]."""
    return np.asarray(values.mean(axis=1) @ (at.widths / at.widths.sum()))


def cell_weights(at: Grid) -> Tensor:
    """What each cell of one image counts in `mean_over_cells`: float32 [draws * n], sum 1."""
    share = at.widths / at.widths.sum() / len(at.timesteps)
    return torch.from_numpy(np.tile(share, len(at.timesteps))).float()


@dataclass(frozen=True)
class QueryScores:
    """Scores float64 [N] of the training images for one query, and what they cost.

    `forwards` are network forward-equivalents spent on this query (a backward counts 2).
    """

    scores: Array
    forwards: float
