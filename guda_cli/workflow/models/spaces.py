"""Where diffusion takes place: in pixels, or in the latents of a VAE with prompts as conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from guda_cli.data.classes import Classes
from guda_cli.data.dataset import Pixels
from guda_cli.data.images import to_float
from guda_cli.diffusion.denoiser import Network, UNetDenoiser
from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.diffusion.text_denoiser import TextDenoiser
from guda_cli.latent.vae import LatentCodec, spread_map


class Space(Protocol):
    """What a network is trained on (x0) and told (conditions), seen from images, names and prompts."""

    shape: tuple[int, int, int]
    """[C, H, W] of x0."""
    clips: bool
    """Whether x0 lies in [-1, 1]."""

    def denoiser(self, network: torch.nn.Module, schedule: Schedule) -> Network:
        """The adapter of a network."""
        ...

    def x0(self, pixels: Pixels, digests: Sequence[str]) -> Tensor:
        """x0 float32 [N, C, H, W] of uint8 images with these pixel digests."""
        ...

    def images(self, x0: Tensor) -> Pixels:
        """uint8 images [N, C, H, W] of x0."""
        ...

    def conditions(self, names: Sequence[str | None]) -> Tensor | None:
        """Conditions int64 [N] by class name or prompt; None for unconditional networks."""
        ...

    def spread(self, values: Array) -> Array:
        """A map over x0's pixels [h, w] as one over the image's."""
        ...


class PixelSpace:
    """Images as they are, in [-1, 1]; conditions are classes, if any."""

    clips = True

    def __init__(self, shape: tuple[int, int, int], classes: Classes | None) -> None:
        self.shape, self.classes = shape, classes

    def denoiser(self, network: torch.nn.Module, schedule: Schedule) -> Network:
        """See `Space`."""
        return UNetDenoiser(network, schedule, next(network.parameters()).dtype)

    def x0(self, pixels: Pixels, digests: Sequence[str]) -> Tensor:
        """See `Space`."""
        return torch.from_numpy(to_float(pixels))

    def images(self, x0: Tensor) -> Pixels:
        """See `Space`."""
        found: Pixels = ((x0 + 1.0) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
        return found

    def conditions(self, names: Sequence[str | None]) -> Tensor | None:
        """See `Space`; the indices are those of the full data's classes. DataError as `Classes.index`."""
        if self.classes is None:
            return None
        return torch.tensor([self.classes.index(name) for name in names], dtype=torch.int64)

    def spread(self, values: Array) -> Array:
        """See `Space`."""
        return values


class LatentSpace:
    """Latents of a VAE; conditions are prompts, None the empty one."""

    clips = False

    def __init__(self, codec: LatentCodec, bank: PromptBank, shape: tuple[int, int, int], size: int) -> None:
        self.codec, self.bank, self.shape, self.size = codec, bank, shape, size
        self._known: dict[str, Tensor] = {}

    def denoiser(self, network: torch.nn.Module, schedule: Schedule) -> Network:
        """See `Space`."""
        return TextDenoiser(network, schedule, self.bank)

    def x0(self, pixels: Pixels, digests: Sequence[str]) -> Tensor:
        """See `Space`: posterior means, so that an image has one latent. Those of the last call are kept."""
        fresh = [i for i, digest in enumerate(digests) if digest not in self._known]
        encoded = self.codec.encode(torch.from_numpy(np.ascontiguousarray(pixels[fresh])))
        known = self._known | dict(zip([digests[i] for i in fresh], encoded, strict=True))
        self._known = {digest: known[digest] for digest in digests}
        return torch.stack([known[digest] for digest in digests])

    def images(self, x0: Tensor) -> Pixels:
        """See `Space`."""
        found: Pixels = self.codec.decode(x0).numpy()
        return found

    def conditions(self, names: Sequence[str | None]) -> Tensor:
        """See `Space`."""
        return self.bank.indices([name or "" for name in names])

    def spread(self, values: Array) -> Array:
        """See `Space`; the sum stays."""
        found: Array = spread_map(values, self.size)
        return found
