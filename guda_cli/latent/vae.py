"""The variational autoencoder of a latent diffusion model: its configuration, and running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from guda_cli.checkpoints.components import latent_shape
from guda_cli.data.images import pixels_digest
from guda_cli.diffusion.networks import Weights, check_finite, moved, sharing
from guda_cli.diffusion.noise import generator, seed_of
from guda_cli.diffusion.weight_file import MappedWeights
from guda_cli.errors import DataError
from guda_cli.light_imports import light_import
from guda_cli.sections import LatentSpec

PIXELS_A_BATCH = 2**18  # 64 images of 64 x 64, one of 512 x 512
LARGEST_STD = 4.0  # Stable Diffusion 1.x without its factor: 5.5
STD_RANGE = (0.3, 3.0)  # of scaled latents; a right factor brings it to about 1


def vae_config(spec: LatentSpec, size: int, channels: int) -> dict[str, Any]:
    """Configuration of an `AutoencoderKL` for `size` x `size` images of `channels` channels.

    `scaling_factor` is 1 until training has measured it.
    """
    levels = len(spec.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(spec.block_out_channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": channels,
        "latent_channels": spec.latent_channels,
        "layers_per_block": spec.layers_per_block,
        "norm_num_groups": spec.norm_num_groups,
        "out_channels": channels,
        "sample_size": size,
        "scaling_factor": 1.0,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def build_vae(config: Mapping[str, Any], seed: int) -> torch.nn.Module:
    """An `AutoencoderKL` of that configuration, weights drawn from `seed`; DataError if diffusers cannot."""
    light_import("diffusers.models.autoencoders.autoencoder_kl")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(seed_of("guda.vae-init/1", seed))
    try:
        vae: torch.nn.Module = AutoencoderKL.from_config(dict(config))
    except (TypeError, ValueError) as err:
        raise DataError("diffusers cannot build this AutoencoderKL", why=str(err)) from None
    return vae


class LatentCodec:
    """Images to scaled latents and back with a trained `AutoencoderKL`, in float32 throughout.

    A scaled latent is `(z - shift_factor) * scaling_factor` (shift 0 where the configuration has none), as
    Stable Diffusion's network is trained on (Rombach et al. 2022, section G): x0 of the diffusion. With
    `latents_mean` and `latents_std`, as some of Stable Diffusion XL's VAEs have them, it is
    `(z - mean) * scaling_factor / std`, channel by channel.
    """

    def __init__(
        self, weights: Weights, config: Mapping[str, Any], device: torch.device | str = "cpu"
    ) -> None:
        if not isinstance(weights, MappedWeights):  # those are a store's, which knows it of them
            check_finite(weights, "the VAE")
        placed = {name: value.to(device, torch.float32) for name, value in weights.items()}
        try:
            self.vae = moved(sharing(lambda: build_vae(config, 0), placed), device)
        except ValueError as err:
            raise DataError("the VAE's weights do not fit its configuration", why=_first(err)) from None
        self.config: Mapping[str, Any] = dict(self.vae.config)  # type: ignore[arg-type]  # with defaults
        self.device = torch.device(device)
        self.scaling = self._channels("latents_std", 1.0).reciprocal() * float(self.config["scaling_factor"])
        self.shift = self._channels("latents_mean", float(self.config["shift_factor"] or 0.0))

    def _channels(self, name: str, otherwise: float) -> Tensor:
        """A value a channel [1, c, 1, 1], or one for all [1, 1, 1, 1], on the CPU."""
        values = self.config.get(name) or [otherwise]
        return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)

    @torch.inference_mode()
    def encode(
        self, images: Tensor, *, posterior: str = "mean", digests: Sequence[str] | None = None
    ) -> Tensor:
        """Scaled latents float32 [N, c, h, w] on the CPU, of uint8 `images` [N, C, H, W].

        The posterior's mean, or with `posterior="sample"` one draw from it whose noise is seeded by the
        image's pixels (`digests`: their `pixels_digest`, computed when None). DataError for images of other
        channels or sides than the VAE takes, and for latents that are not finite.
        """
        self._check(images)
        parts = []
        for rows in batches(len(images), images.shape[-2] * images.shape[-1]):
            found = self.vae.encode(images[rows].to(self.device).float() / 127.5 - 1.0).latent_dist  # type: ignore[operator]
            z = found.mean
            if posterior == "sample":
                own = None if digests is None else digests[rows]
                z = drawn_posterior(z, found.std, images[rows], own)
            parts.append((z.cpu() - self.shift) * self.scaling)
        x0 = torch.cat(parts) if parts else torch.zeros((0, int(self.config["latent_channels"]), 0, 0))
        check_latents(x0, "the VAE encodes the images to NaN or infinite latents")
        return x0

    @torch.inference_mode()
    def decode(self, x0: Tensor) -> Tensor:
        """uint8 images [N, C, H, W] on the CPU, of scaled latents `x0` [N, c, h, w].

        DataError for latents that are not finite, before or after decoding.
        """
        check_latents(x0, "the latents to decode are NaN or infinite")
        pixels = x0.shape[-2] * x0.shape[-1] * self.factor**2
        parts = []
        for rows in batches(len(x0), pixels):
            z = x0[rows].float() / self.scaling + self.shift
            out = self.vae.decode(z.to(self.device)).sample.cpu()  # type: ignore[operator]
            check_latents(out, "the VAE decodes the latents to NaN or infinite pixels")
            parts.append(((out / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8))
        if not parts:
            return torch.zeros((0, int(self.config["out_channels"]), 0, 0), dtype=torch.uint8)
        return torch.cat(parts)

    @property
    def factor(self) -> int:
        """Pixels a side per latent pixel."""
        return int(2 ** (len(self.config["block_out_channels"]) - 1))

    def shape(self, size: int) -> tuple[int, int, int]:
        """[c, h, w] of the latent of a `size` x `size` image."""
        return latent_shape(self.config, size)

    def _check(self, images: Tensor) -> None:
        channels = int(self.config["in_channels"])
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise TypeError(f"images must be uint8 [N, C, H, W], not {images.dtype} {list(images.shape)}")
        if images.shape[1] != channels:
            raise DataError(
                f"the VAE takes images of {channels} channels, not {images.shape[1]}",
                fix=f"--set data.channels={channels}",
            )
        if any(side < self.factor or side % self.factor for side in images.shape[-2:]):
            raise DataError(
                f"the VAE cannot take images of {images.shape[-2]} x {images.shape[-1]} pixels",
                why=f"its latents have one pixel for {self.factor} x {self.factor} of the image",
                fix=f"set data.size to a multiple of {self.factor}",
            )


def check_scaling(x0: Tensor) -> str | None:
    """A warning when the standard deviation of the data's scaled latents `x0` [N, c, h, w] is far from 1."""
    if x0.numel() < 2:
        return None
    std = float(x0.double().std())
    if STD_RANGE[0] <= std <= STD_RANGE[1]:
        return None
    return (
        f"the latents have a standard deviation of {std:.2g} where about 1 is meant: the scaling_factor (or "
        "latents_std) in the VAE's config.json is not this VAE's, or the images are unlike those it was "
        "trained on"
    )


def check_overflow(x0: Tensor) -> None:
    """DataError when scaled latents `x0` [N, c, h, w] are too large for any factor that was put in."""
    std = float(x0.double().std())
    if not std <= LARGEST_STD:
        raise DataError(
            f"the VAE's latents have a standard deviation of {std:.2g} where about 1 is meant",
            why="the scaling_factor in vae/config.json is not this VAE's (Stable Diffusion 1.x: 0.18215)",
            fix="mend that file; or --set latent.check_scaling=false if the VAE is meant to be so",
        )


def spread_map(values: npt.ArrayLike, size: int) -> npt.NDArray[np.float64]:
    """A map over latent pixels [..., h, w] as one over `size` x `size` image pixels with the same sum.

    Bilinear between the centres of the latent pixels, constant beyond the outermost.
    """
    source = np.asarray(values, dtype=np.float64)
    rows, columns = (_spreading(side, size) for side in source.shape[-2:])
    spread: npt.NDArray[np.float64] = rows @ source @ columns.T
    return spread


def _spreading(side: int, size: int) -> npt.NDArray[np.float64]:
    """[size, side]: how each of `side` values is dealt out to `size` places; each column sums to 1."""
    centres = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0.0, side - 1.0)
    weights = np.maximum(0.0, 1.0 - np.abs(centres[:, None] - np.arange(side)[None, :]))
    shares: npt.NDArray[np.float64] = weights / weights.sum(axis=0)
    return shares


def drawn_posterior(mean: Tensor, std: Tensor, images: Tensor, digests: Sequence[str] | None) -> Tensor:
    """One draw from each posterior [N, c, h, w], seeded by its image's pixels (`digests` where known)."""
    known = digests if digests is not None else [pixels_digest(image.numpy()) for image in images]
    return mean + std * _noise(known, mean.shape[1:]).to(mean.device)


def batches(count: int, pixels: int) -> list[slice]:
    """Slices of `count` images of so many `pixels` that are encoded or decoded at once."""
    step = max(1, PIXELS_A_BATCH // pixels)
    return [slice(start, start + step) for start in range(0, count, step)]


def _noise(digests: Sequence[str], shape: torch.Size) -> Tensor:
    """Unit normal noise float32 [N, *shape], a pure function of each digest."""
    return torch.stack([torch.randn(shape, generator=generator("guda.posterior/1", d)) for d in digests])


def check_latents(values: Tensor, message: str) -> None:
    """DataError with `message` where values are not finite."""
    if not bool(torch.isfinite(values).all()):
        raise DataError(
            message,
            why="often a VAE whose weights overflowed in fp16, or one with another's scaling_factor",
            fix="use the VAE that the network was trained with, from float32 or bf16 weights",
        )


def _first(err: Exception) -> str:
    """The first telling line of torch's report of tensors that do not fit."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[1] if len(lines) > 1 else lines[0] if lines else type(err).__name__
