"""Terms of the negative ELBO from one noise prediction (method.md section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, add_noise, at, to_noise, to_sample
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.noise import QueryNoise
from guda_cli.diffusion.schedule import Array, Schedule


def term_maps(schedule: Schedule, raw: Tensor, x_t: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Per-pixel parts of the t-th term of -ELBO in nats, float64 [N, C, H, W] on the CPU.

    w_t (eps_theta - eps)^2; at zero terminal SNR, where w_T is infinite and the noise is known, the
    equal (SNR_{t-1} - SNR_t) / 2 (x0 - x0_hat)^2.
    """
    shape = (-1,) + (1,) * (x0.dim() - 1)
    weight = at(schedule.elbo_weight, t).view(shape)
    squared = (_double(to_noise(schedule, raw, x_t, t)) - _double(noise)) ** 2
    if schedule.abar[-1] > 0:
        return weight * squared
    image = (_double(to_sample(schedule, raw, x_t, t)) - _double(x0)) ** 2
    on_image = at(schedule.x0_weight, t).view(shape)
    return torch.where(torch.isinf(weight), on_image * image, weight * squared)


def _double(x: Tensor) -> Tensor:
    """float64 on the CPU."""
    return x.cpu().double()


def terms(schedule: Schedule, raw: Tensor, x_t: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """`term_maps` summed over pixels: float64 [N]."""
    if schedule.abar[-1] > 0:  # the common case without a float64 weight map
        squared = (to_noise(schedule, raw, x_t, t) - noise).cpu().double().square_().flatten(1).sum(1)
        return at(schedule.elbo_weight, t) * squared
    return term_maps(schedule, raw, x_t, x0, noise, t).flatten(1).sum(1)


def cells(digests: Sequence[str], grid: Grid) -> list[tuple[int, str, int, int]]:
    """(image row, digest, t, draw) of every forward, image by image."""
    steps = grid.timesteps.tolist()
    return [(i, digest, t, d) for i, digest in enumerate(digests) for d, row in enumerate(steps) for t in row]


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
) -> Array:
    """-ELBO terms in nats [images, draws, timesteps] of images x0 [N, C, H, W] in [-1, 1].

    `digests` are of the pixels; `cond` [N, ...] holds each image's condition (`Denoiser.predict`). Rows of
    all images fill common batches; each row's noise depends on its image, t and draw alone, so the result
    does not depend on the packing.
    """
    jobs = cells(digests, grid)
    out = torch.empty(len(jobs), dtype=torch.float64)
    noises = QueryNoise(seed)
    buffer = torch.empty(min(batch_size, len(jobs)), *x0.shape[1:])
    for start in range(0, len(jobs), batch_size):
        part = jobs[start : start + batch_size]
        noise = noises.fill(buffer[: len(part)], [(digest, t, d) for _, digest, t, d in part])
        noise = noise.to(denoiser.device)
        rows = [i for i, *_ in part]
        images = x0[rows].to(denoiser.device)
        t = torch.tensor([t for _, _, t, _ in part], device=denoiser.device)
        x_t = add_noise(denoiser.schedule, images, noise, t)
        raw = denoiser.predict(x_t, t, None if cond is None else cond[rows].to(denoiser.device))
        out[start : start + len(part)] = terms(denoiser.schedule, raw, x_t, images, noise, t)
    draws, n = grid.timesteps.shape
    return out.view(len(digests), draws, n).numpy()


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
) -> Array:
    """sum_t v_t KL_t per pixel [H, W] for one image x0 [C, H, W], channels added, mean over draws.

    `cond` [1, ...] is the image's condition.
    """
    jobs = cells([digest], grid)
    noises = QueryNoise(seed)
    scale = torch.from_numpy(multiplier)
    widths = torch.from_numpy(grid.widths).repeat(grid.timesteps.shape[0]) / grid.timesteps.shape[0]
    total = torch.zeros(x0.shape[-2:], dtype=torch.float64)
    for start in range(0, len(jobs), batch_size):
        part = jobs[start : start + batch_size]
        noise = noises.fill(torch.empty(len(part), *x0.shape), [(d, t, k) for _, d, t, k in part])
        noise = noise.to(denoiser.device)
        t = torch.tensor([t for _, _, t, _ in part], device=denoiser.device)
        images = x0.to(denoiser.device).expand(len(part), *x0.shape)
        x_t = add_noise(denoiser.schedule, images, noise, t)
        given = None if cond is None else cond[[0] * len(part)].to(denoiser.device)
        maps = term_maps(denoiser.schedule, denoiser.predict(x_t, t, given), x_t, images, noise, t).sum(1)
        factor = scale[t.cpu()] * widths[start : start + len(part)]
        total += (factor.view(-1, 1, 1) * maps).sum(0)
    return total.numpy()
