"""What a denoiser's last blocks make of images: the features that tell images of another kind.

Means and deviations over space of every channel, of images with a little noise. Contents differ there,
though only denoising was learnt (Baranchuk et al. 2022, "Label-efficient semantic segmentation with
diffusion models").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guda_cli.diffusion.cells import Samples, batches, cells
from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.schedule import Array, Schedule

NOISE = 1.0 / 3.0  # to signal: where drawing leaves traces, that no training image has, noise hides them
BLOCKS = 4  # at most


def timestep(schedule: Schedule) -> int:
    """The t whose ratio of noise to signal is nearest to NOISE."""
    with np.errstate(divide="ignore"):
        ratio = np.log(schedule.sigma[1:]) - np.log(np.maximum(schedule.signal[1:], 1e-300))
    return 1 + int(np.argmin(np.abs(ratio - np.log(NOISE))))


def last_blocks(network: nn.Module) -> list[nn.Module]:
    """What features are taken of: the last list of blocks of a network, of many blocks BLOCKS evenly.

    A U-Net's are those that lead up, a transformer's all of one kind; of a network without any, it is itself.
    """
    lists = [list(part) for part in network.children() if isinstance(part, nn.ModuleList) and len(part)]
    if not lists:
        return [network]
    found = lists[-1]
    places = np.linspace(0, len(found), min(BLOCKS, len(found)) + 1)[1:]
    return [found[round(float(place)) - 1] for place in places]


@torch.inference_mode()
def features(
    denoiser: Network,
    x0: Tensor,
    digests: Sequence[str],
    *,
    draws: int,
    seed: int,
    batch_size: int,
    cond: Tensor | None = None,
) -> Array:
    """Features [N, F] of images x0 [N, C, H, W] in [-1, 1], mean over `draws` of noise.

    `digests` are of the pixels; `cond` [N, ...] holds each image's condition (`Denoiser.predict`).
    """
    t = np.full((draws, 1), timestep(denoiser.schedule), dtype=np.int64)
    jobs, samples = cells(digests, t), Samples(x0, tuple(digests), cond)
    parts = []
    with _watched(last_blocks(denoiser.network)) as seen:
        for batch in batches(denoiser, samples, jobs, seed=seed, batch_size=batch_size):
            denoiser.predict(batch.x_t, batch.t, batch.cond)
            parts.append(torch.cat([_pooled(seen[i]) for i in sorted(seen)], dim=1).cpu().double().numpy())
    found = np.concatenate(parts)
    return np.asarray(found.reshape(len(digests), draws, -1).mean(axis=1))


@contextmanager
def _watched(blocks: Sequence[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """The last output of each block, by its place; of several tensors the last, which is the image's."""
    seen: dict[int, Tensor] = {}

    def watch(place: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            out = getattr(output, "sample", output)
            seen[place] = out[-1] if isinstance(out, tuple) else out

        return hook

    handles = [block.register_forward_hook(watch(i)) for i, block in enumerate(blocks)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _pooled(values: Tensor) -> Tensor:
    """Means and deviations [N, 2 C] over space of maps [N, C, H, W] or of tokens [N, L, C]."""
    flat = values.float().flatten(2) if values.dim() > 3 else values.float().transpose(1, 2)
    return torch.cat([flat.mean(dim=2), flat.std(dim=2, correction=0)], dim=1)
