"""A video VAE used for single pictures: one frame in, one frame out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guda_cli.errors import DataError
from guda_cli.latent.vae import batches, check_latents, drawn_posterior


class FrameCodec:
    """See `Codec`: latents normalised channel by channel, (z - latents_mean) / latents_std, float32."""

    def __init__(self, vae: Any, factor: int, device: torch.device) -> None:
        self.vae, self.factor, self.device = vae.to(device), factor, device
        channels = (1, -1, 1, 1)
        self.mean = torch.tensor(vae.config.latents_mean, dtype=torch.float32).view(channels)
        self.std = torch.tensor(vae.config.latents_std, dtype=torch.float32).view(channels)

    @torch.inference_mode()
    def encode(
        self, images: Tensor, *, posterior: str = "mean", digests: Sequence[str] | None = None
    ) -> Tensor:
        """See `Codec`."""
        if any(side % self.factor for side in images.shape[-2:]):
            raise DataError(
                f"the VAE cannot take images of {images.shape[-2]} x {images.shape[-1]} pixels",
                why=f"its latents have one pixel for {self.factor} x {self.factor} of the image",
                fix=f"set data.size to a multiple of {self.factor}",
            )
        parts = []
        for rows in batches(len(images), images.shape[-2] * images.shape[-1]):
            frames = images[rows].to(self.device).float()[:, :, None] / 127.5 - 1.0
            found = self.vae.encode(frames).latent_dist
            z = found.mean[:, :, 0]
            if posterior == "sample":
                own = None if digests is None else digests[rows]
                z = drawn_posterior(z, found.std[:, :, 0], images[rows], own)
            parts.append((z.cpu() - self.mean) / self.std)
        x0 = torch.cat(parts) if parts else torch.zeros((0, self.mean.shape[1], 0, 0))
        check_latents(x0, "the VAE encodes the images to NaN or infinite latents")
        return x0

    @torch.inference_mode()
    def decode(self, x0: Tensor) -> Tensor:
        """See `Codec`."""
        check_latents(x0, "the latents to decode are NaN or infinite")
        parts = []
        for rows in batches(len(x0), x0.shape[-2] * x0.shape[-1] * self.factor**2):
            z = (x0[rows].float() * self.std + self.mean).to(self.device)
            out = self.vae.decode(z[:, :, None]).sample[:, :, 0].cpu()
            check_latents(out, "the VAE decodes the latents to NaN or infinite pixels")
            parts.append(((out / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8))
        return torch.cat(parts) if parts else torch.zeros((0, 3, 0, 0), dtype=torch.uint8)

    def shape(self, size: int) -> tuple[int, int, int]:
        """See `Codec`."""
        return int(self.mean.shape[1]), size // self.factor, size // self.factor
