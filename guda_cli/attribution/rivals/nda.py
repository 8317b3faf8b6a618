"""`nda`: which training images the optimal denoiser would answer a query's patches with.

Zhao et al. 2025, Nonparametric Data Attribution for Diffusion Models (arXiv 2510.14269). The optimal denoiser
of a finite training set answers x_t with a mean of its images, each weighted by the softmax of
-|x_t - signal x_i|^2 / (2 sigma^2); networks do so patch by patch (Kamb & Ganguli 2024). These weights are
the scores: no network is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from guda_cli import memory
from guda_cli.attribution.rivals.engine import Advance, Arrays, Context, Engine, Prepared
from guda_cli.attribution.rivals.gradients import evenly_spaced
from guda_cli.data.queries import Query
from guda_cli.diffusion.cells import batches, cells
from guda_cli.diffusion.denoiser import to_x0
from guda_cli.diffusion.schedule import Array

MEMORY = 256 << 20  # bytes of the distances held at once
SIDE = 7 / 32  # of a patch in that of the image: the authors' for CIFAR


def usual_patch(side: int) -> int:
    """The odd number of pixels nearest to 7 of 32, at least 3."""
    return max(3, 2 * round((side * SIDE - 1) / 2) + 1)


def scales(images: Tensor) -> Iterator[Tensor]:
    """Images [N, C, H, W] as they are, and at half the size where that leaves 4 pixels a side or more.

    Halves are sums of four pixels over 2: their noise has the deviation that it has at full size.
    """
    yield images
    if min(images.shape[2:]) >= 8:
        yield F.avg_pool2d(images, 2) * 2.0


def patch_weights(
    x_t: Tensor, training: Tensor, signal: float, sigma: float, patch: int, memory: int = MEMORY
) -> Tensor:
    """What share of the weight each training image has in the answer to one noised image: [N], sum 1.

    `x_t` [C, H, W] = signal x + sigma noise, `training` [N, C, H, W]. For the patch around every pixel
    (`patch` pixels a side, odd): softmax of -|p - signal p'|^2 / (2 sigma^2) over the patches p' of all
    training images that reach as far over the border, summed image by image; then the mean over the patches.
    """
    radius = patch // 2
    total = torch.zeros(len(training), dtype=torch.float64)
    ours = F.unfold(x_t[None], patch, padding=radius)[0].T
    theirs = signal * F.unfold(training, patch, padding=radius).transpose(1, 2)
    for places in _alike(x_t.shape[1], x_t.shape[2], radius):
        candidates = theirs[:, places].flatten(0, 1)
        lengths = candidates.square().sum(1)
        for part in torch.split(ours[places], max(1, memory // (4 * len(candidates)))):
            # |p|^2 is the same for all candidates
            logits = (part @ candidates.T - lengths / 2) / sigma**2
            weights = logits.softmax(1).view(len(part), len(training), len(places))
            total += weights.sum((0, 2)).double().cpu()
    return total / len(ours)


def _alike(height: int, width: int, radius: int) -> list[Tensor]:
    """Places whose patches reach equally far over each border."""
    found: dict[tuple[int, ...], list[int]] = {}
    for row in range(height):
        for column in range(width):
            room = (row, height - 1 - row, column, width - 1 - column)
            found.setdefault(tuple(min(r, radius) for r in room), []).append(row * width + column)
    return [torch.tensor(places) for places in found.values()]


class Nda(Engine):
    """The mean of `patch_weights` over timesteps, draws of the query's noise, and two scales.

    In the model's own space: of latent models on latents. Where training mirrored images, an image's weight
    is that of both its orientations. Nothing is prepared.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.model, self.denoiser = context.model, context.model.denoiser
        self.seed, self.draws = int(self.values["seed"]), int(self.values["draws"])
        highest = max(1, round(float(self.values["nda_t_max"]) * self.denoiser.schedule.T))
        self.timesteps = evenly_spaced(highest, int(self.values["timesteps"]))
        what = f"{self.draws:,} draws at {len(self.timesteps):,} timesteps"
        memory.check(8 * self.draws * len(self.timesteps), what, fix="--set attribution.draws=16")

    def expected_forwards(self) -> int:
        """See `Engine`: no network is run."""
        return 0

    def prepare(self, advance: Advance) -> Prepared:
        """Nothing but the side of a patch."""
        side = min(self.model.pool.images.shape[2:])
        patch = int(self.values["nda_patch"] or usual_patch(side))
        return Prepared({"patch": np.array([patch | 1])}, 0.0, {"patch": patch | 1})

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """See `Engine`; shares of an image sum to 1 over the pool."""
        patch, samples = int(prepared["patch"][0]), self.model.of_queries(queries)
        training = list(scales(to_x0(self.model.seen.images).to(self.denoiser.device)))
        out = torch.zeros(len(queries), len(training[0]), dtype=torch.float64)
        jobs = cells(samples.digests, np.tile(np.asarray(self.timesteps, dtype=np.int64), (self.draws, 1)))
        schedule = self.denoiser.schedule
        for batch in batches(self.denoiser, samples, jobs, seed=self.seed, batch_size=64):
            for row, t, x_t in zip(batch.rows.tolist(), batch.t.tolist(), batch.x_t, strict=True):
                signal, sigma = float(schedule.signal[t]), float(schedule.sigma[t])
                for ours, theirs in zip(scales(x_t[None]), training, strict=True):
                    out[row] += patch_weights(ours[0], theirs, signal, sigma, patch)
        mean = (out / (len(self.timesteps) * self.draws * len(training))).numpy()
        return np.stack([self.model.orientations(each).sum(axis=0) for each in mean]), 0.0
