"""Drawing images: DDIM (Song et al. 2021, eq. 12) and DDPM as its eta = 1 member."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, to_noise, to_sample
from guda_cli.diffusion.noise import generator


def timesteps(T: int, steps: int) -> list[int]:
    """`steps` evenly spaced t from T down to 1."""
    ladder = np.linspace(1, T, min(steps, T)) if steps > 1 else [T]
    return [int(t) for t in np.unique(np.rint(ladder))[::-1]]


def _guided(denoiser: Denoiser, x: Tensor, level: Tensor, cond: Tensor | None, guidance: float) -> Tensor:
    """The raw prediction under guidance; raw predictions of every type are affine in the noise."""
    raw = denoiser.predict(x, level, cond)
    if cond is None or guidance == 1.0:
        return raw
    null = denoiser.predict(x, level)
    return null + guidance * (raw - null)


@torch.inference_mode()
def sample(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    indices: Sequence[int],
    *,
    sampler: str,
    steps: int,
    seed: int,
    cond: Tensor | None = None,
    guidance: float = 1.0,
    clip: bool = True,
    on_step: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Clean images, or latents, x0 [len(indices), C, H, W].

    Image i depends on (seed, i) alone: asking for more images, or in other batches, gives the same
    ones. With `clip` the predicted x0 is clipped to [-1, 1] at every step, as `DDPMScheduler` does.
    `cond` [len(indices), ...] holds each image's condition; `guidance` W other than 1 draws with
    eps_null + W (eps_cond - eps_null) (classifier-free guidance, Ho & Salimans 2022, with W = 1 + w).
    """
    bound = 1.0 if clip else float("inf")
    schedule, eta = denoiser.schedule, 1.0 if sampler == "ddpm" else 0.0
    sources = [generator("guda.sample/1", seed, i) for i in indices]

    def draw() -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in sources]).to(denoiser.device)

    x = draw()  # of unit variance; what the network sees is as long as the process has it
    ladder = timesteps(schedule.T, steps)
    for t, previous in zip(ladder, ladder[1:] + [0], strict=True):
        level = torch.full((len(x),), t, device=denoiser.device)
        x_t = x if schedule.length[t] == 1.0 else schedule.length[t] * x
        raw = _guided(denoiser, x_t, level, cond, guidance)
        abar, abar_prev = schedule.abar[t], schedule.abar[previous]
        x0 = to_sample(schedule, raw, x_t, level).clamp(-bound, bound)
        if abar > 0:
            noise = (x - abar**0.5 * x0) / (1 - abar) ** 0.5
        else:  # zero terminal SNR: x_T is the noise
            noise = to_noise(schedule, raw, x_t, level)
        variance = eta**2 * (1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev)
        x = abar_prev**0.5 * x0 + max(1 - abar_prev - variance, 0.0) ** 0.5 * noise
        if variance > 0:
            x = x + variance**0.5 * draw()
        on_step(1)
    return x.clamp(-bound, bound)
