"""Training the variational autoencoder of a latent diffusion model on the recipe's images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guda_cli.checkpoints.components import latent_shape, scale_factor
from guda_cli.data.images import to_float
from guda_cli.diffusion.networks import Weights, moved
from guda_cli.diffusion.noise import generator
from guda_cli.errors import DataError
from guda_cli.latent.vae import LatentCodec, build_vae, vae_config
from guda_cli.sections import LatentSpec
from guda_cli.training import loop
from guda_cli.training.run_state import RunState
from guda_cli.training.stream import Stream

MEASURED = 512  # images that the scaling factor is measured on
WARMUP = 50
CROP = 32  # pixels a side of the parts that most of the training sees: many small steps learn faster
CROPPED = 0.75  # share of the steps that see them; the last ones see whole images


def train_vae(
    images: Tensor,
    spec: LatentSpec,
    *,
    resume: RunState | None = None,
    hooks: loop.Hooks,
    device: torch.device | str = "cpu",
) -> tuple[Weights, dict[str, Any]]:
    """Weights and configuration of an `AutoencoderKL` trained on uint8 `images` [N, C, H, W].

    The first three quarters of the steps see seeded 32 x 32 crops of larger images, the last whole ones.
    Loss: mean squared error in [-1, 1] of the image decoded from a draw of the posterior, plus
    `spec.kl_weight` times the posterior's KL divergence from the unit normal, in nats a pixel (Kingma &
    Welling 2014; Rombach et al. 2022, section G). The `scaling_factor` in the configuration is one over the
    standard deviation of the posterior means of (at most 512 seeded) images. DataError for images that
    are not square; loop.Diverged.
    """
    if not len(images) or images.shape[-1] != images.shape[-2]:
        raise DataError(f"a VAE is trained on square images, not on {list(images.shape)}")
    size, channels = int(images.shape[-1]), int(images.shape[1])
    config = vae_config(spec, size, channels)
    vae = moved(build_vae(config, spec.seed), device).train()
    factor = scale_factor(config)
    stream = Stream(len(images), spec.batch_size, 1, latent_shape(config, size), spec.seed)

    def loss_at(step: int) -> Tensor:
        batch = stream.at(step)
        x = as_input(images[batch.indices])
        if step < CROPPED * spec.steps:
            x = crops(x, CROP, spec.seed, step)
        noise = batch.noise[..., : x.shape[-2] // factor, : x.shape[-1] // factor]
        return vae_loss(vae, x.to(device), noise.to(device), spec.kl_weight)

    settings = loop.LoopSpec(
        spec.steps,
        spec.lr,
        spec.seed,
        warmup=min(WARMUP, spec.steps),
        decay_lr=True,
        rate_setting="latent.lr",
    )  # fmt: skip
    weights = loop.run(vae, loss_at, settings, resume=resume, hooks=hooks)
    return weights, {**config, "scaling_factor": _scaling_factor(weights, config, images, spec.seed, device)}


def as_input(images: Tensor) -> Tensor:
    """float32 in [-1, 1] of uint8 pixels."""
    return torch.from_numpy(to_float(images.numpy()))


def crops(x: Tensor, side: int, seed: int, step: int) -> Tensor:
    """[N, C, side, side]: a seeded part of each of `x` [N, C, H, H]; `x` itself where it is no larger.

    So is an `x` whose side is no multiple of `side`, which latents may not divide.
    """
    if x.shape[-1] <= side or x.shape[-1] % side:
        return x
    g = generator("guda.crops/1", seed, step)
    corners = torch.randint(0, x.shape[-1] - side + 1, (len(x), 2), generator=g).tolist()
    parts = [x[i, :, top : top + side, left : left + side] for i, (top, left) in enumerate(corners)]
    return torch.stack(parts)


def vae_loss(vae: torch.nn.Module, x: Tensor, noise: Tensor, kl_weight: float) -> Tensor:
    """Loss of `x` [N, C, H, W] in [-1, 1] with the posterior's noise [N, c, h, w]; see `train_vae`."""
    posterior = vae.encode(x).latent_dist  # type: ignore[operator]
    decoded = vae.decode(posterior.mean + posterior.std * noise).sample  # type: ignore[operator]
    nats_a_pixel = posterior.kl().mean() / (x.shape[-2] * x.shape[-1])
    loss: Tensor = torch.nn.functional.mse_loss(decoded, x) + kl_weight * nats_a_pixel
    return loss


def _scaling_factor(
    weights: Weights, config: dict[str, Any], images: Tensor, seed: int, device: torch.device | str
) -> float:
    """One over the standard deviation of the posterior means, all channels and places together."""
    order = torch.randperm(len(images), generator=generator("guda.scaling/1", seed))[:MEASURED]
    latents = LatentCodec(weights, config, device).encode(images[order])
    return 1.0 / max(float(latents.double().std()), 1e-6)
