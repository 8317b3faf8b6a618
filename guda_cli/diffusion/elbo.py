"""Terms of the negative ELBO from one noise prediction (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guda_cli.diffusion.cells import Kept, Noised, Samples, batches, cells
from guda_cli.diffusion.denoiser import Denoiser, exact, level, to_noise, to_sample
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array, Schedule


def term_maps(schedule: Schedule, raw: Tensor, x_t: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Per-pixel parts of the t-th term of -ELBO in nats, float64 [N, C, H, W], on the device if it can.

    w_t (eps_theta - eps)^2; at zero terminal SNR, where w_T is infinite and the noise is known, the
    equal (SNR_{t-1} - SNR_t) / 2 (x0 - x0_hat)^2.
    """
    shape = (-1,) + (1,) * (x0.dim() - 1)
    weight = level(schedule, "elbo_weight", t).view(shape)
    squared = (exact(to_noise(schedule, raw, x_t, t)) - exact(noise)) ** 2
    if schedule.abar[-1] > 0:
        return weight * squared
    image = (exact(to_sample(schedule, raw, x_t, t)) - exact(x0)) ** 2
    on_image = level(schedule, "x0_weight", t).view(shape)
    return torch.where(torch.isinf(weight), on_image * image, weight * squared)


def terms(schedule: Schedule, raw: Tensor, x_t: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """`term_maps` summed over pixels: float64 [N], on the device if it can."""
    if schedule.abar[-1] > 0:  # the common case without a float64 weight map
        squared = exact(to_noise(schedule, raw, x_t, t) - noise).square_().flatten(1).sum(1)
        return level(schedule, "elbo_weight", t) * squared
    return term_maps(schedule, raw, x_t, x0, noise, t).flatten(1).sum(1)


@torch.inference_mode()
def image_terms(
    denoiser: Denoiser,
    x0: Tensor,
    digests: Sequence[str],
    grid: Grid,
    *,
    seed: int,
    batch_size: int,
    cond: Tensor | None = None,
    kept: Kept | None = None,
) -> Array:
    """-ELBO terms in nats [images, draws, timesteps] of images x0 [N, C, H, W] in [-1, 1].

    `digests` are of the pixels; `cond` [N, ...] holds each image's condition (`Denoiser.predict`). Rows of
    all images fill common batches; each row's noise depends on its image, t and draw alone, so the result
    does not depend on the packing but by rounding. Sums are taken on the device and read back once; noise
    that is `kept` serves the next model, too.
    """
    jobs = cells(digests, grid.timesteps, grid.numbers)
    samples = Samples(x0, tuple(digests), cond).to(denoiser.device)
    found = [
        terms(*_predicted(denoiser, batch))
        for batch in batches(denoiser, samples, jobs, seed=seed, batch_size=batch_size, kept=kept)
    ]
    values = torch.cat(found).cpu() if found else torch.empty(0, dtype=torch.float64)
    return values.view(len(digests), *grid.timesteps.shape).numpy()


@torch.inference_mode()
def weighted_map(
    denoiser: Denoiser,
    x0: Tensor,
    digest: str,
    grid: Grid,
    multiplier: Array,
    *,
    seed: int,
    batch_size: int,
    cond: Tensor | None = None,
    kept: Kept | None = None,
) -> Array:
    """sum_t v_t KL_t per pixel [H, W] for one image x0 [C, H, W], channels added, mean over draws.

    `cond` [1, ...] is the image's condition.
    """
    jobs, samples = cells([digest], grid.timesteps, grid.numbers), Samples(x0[None], (digest,), cond)
    scale = torch.from_numpy(multiplier)
    widths = torch.from_numpy(grid.widths).repeat(grid.timesteps.shape[0]) / grid.timesteps.shape[0]
    total = torch.zeros(x0.shape[-2:], dtype=torch.float64)
    for batch in batches(denoiser, samples, jobs, seed=seed, batch_size=batch_size, kept=kept):
        maps = term_maps(*_predicted(denoiser, batch)).sum(1).cpu()
        factor = scale[batch.t.cpu()] * widths[batch.where]
        total += (factor.view(-1, 1, 1) * maps).sum(0)
    return total.numpy()


def _predicted(denoiser: Denoiser, batch: Noised) -> tuple[Schedule, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The arguments of `terms` for a batch."""
    raw = denoiser.predict(batch.x_t, batch.t, batch.cond)
    return denoiser.schedule, raw, batch.x_t, batch.x0, batch.noise, batch.t
