"""Models that know nothing, to compare a trained one with: places to compare at, and the mean."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, add_noise, at, squared_error, to_x0, training_target
from guda_cli.diffusion.noise import generator
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.training.soundness import BANDS, ENTRIES

HELD = 128 << 20  # bytes of pixels in float64 at once, about
STATISTICS = 4096  # images that mean and variance of the pixels are taken of, at most


class PixelMean:
    """Mean and variance of each value of x0 over the training images."""

    def __init__(self, images: Tensor) -> None:
        """`images` [N, C, H, W] as networks are trained on them; of many a seeded part is looked at."""
        few = images if len(images) <= STATISTICS else images[_rows(len(images), STATISTICS, "statistics")]
        self.mean, self.variance = (torch.empty(few.shape[1:], dtype=torch.float64) for _ in range(2))
        step = max(1, HELD // (8 * few[:, :1, :1].numel()))  # rows of all the images
        whole = step >= few.shape[1] * few.shape[2]
        for channel in (slice(None),) if whole else range(few.shape[1]):
            for start in range(0, few.shape[2], step):
                part = channel, slice(start, start + step)
                x0 = to_x0(few[:, *part]).double()
                self.mean[part], self.variance[part] = x0.mean(0), x0.var(0, unbiased=False)

    def predict(self, schedule: Schedule, x_t: Tensor, t: Tensor) -> Tensor:
        """The raw prediction [N, C, H, W] of the best guess at x0 that looks at one pixel at a time.

        For independent Gaussian pixels E[x0 | x_t] = mean + s v (x_t - s mean) / (s^2 v + sigma^2), where s
        is the signal and v the variance.
        """
        shape = (-1,) + (1,) * (x_t.dim() - 1)
        signal, sigma = (at(values, t).view(shape) for values in (schedule.signal, schedule.sigma))
        off = x_t.double().cpu() - signal * self.mean
        off = off / (signal.square() * self.variance + sigma.square())
        x0, noise = self.mean + signal * self.variance * off, sigma * off
        return training_target(schedule, x0, noise, t.cpu()).to(x_t.dtype).to(x_t.device)


class Looked:
    """The images, noise and timesteps at which models are compared: the same for all."""

    def __init__(
        self, images: Tensor, schedule: Schedule, cond: Tensor | None = None, entries: int = ENTRIES
    ) -> None:
        """`images` [N, C, H, W] are the training images, `cond` [N, ...] what the network is told of each.

        `entries` are the losses a band.
        """
        rows = _rows(len(images), BANDS * entries, "images")
        self.schedule, self.cond = schedule, None if cond is None else cond[rows]
        self.t = 1 + torch.arange(len(rows)) * schedule.T // len(rows)
        self.images, self.rows = images, rows
        self.noise = torch.randn(
            len(rows), *images.shape[1:], generator=generator("guda.soundness/1", "noise")
        )

    @torch.inference_mode()
    def losses(self, denoiser: Denoiser, batch: int = 256) -> Array:
        """The denoising loss per pixel [BANDS * entries] of a model."""
        parts = []
        for start in range(0, len(self.t), batch):
            x_t, t, target, cond = self._part(slice(start, start + batch), denoiser.device)
            parts.append(squared_error(denoiser.predict(x_t, t, cond), target).cpu().double())
        return np.asarray(torch.cat(parts).numpy())

    def mean_losses(self, pixels: PixelMean) -> Array:
        """The same of the mean."""
        parts = []
        for start in range(0, len(self.t), 16):
            x_t, t, target, _ = self._part(slice(start, start + 16), torch.device("cpu"))
            parts.append(squared_error(pixels.predict(self.schedule, x_t, t), target).double())
        return np.asarray(torch.cat(parts).numpy())

    def _part(self, rows: slice, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        x0, noise, t = to_x0(self.images[self.rows[rows]]), self.noise[rows], self.t[rows]
        x0, noise, t = x0.to(device), noise.to(device), t.to(device)
        cond = None if self.cond is None else self.cond[rows].to(device)
        return add_noise(self.schedule, x0, noise, t), t, training_target(self.schedule, x0, noise, t), cond


def _rows(images: int, count: int, what: object) -> Tensor:
    """`count` seeded indices below `images`, cycling where there are fewer."""
    order = torch.randperm(images, generator=generator("guda.soundness/1", what))
    return order[torch.arange(count) % images]
