"""What scoring, training and unlearning need of a network, and its adapter for `UNet2DModel`."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from guda_cli.diffusion.schedule import Array, Schedule


class Denoiser(Protocol):
    """A network that says which noise is in x_t."""

    schedule: Schedule
    device: torch.device

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The raw prediction [N, C, H, W] for x_t [N, C, H, W] and t [N] (1..T)."""
        ...


class UNetDenoiser:
    """Adapter of an unconditional diffusers `UNet2DModel`.

    Models with learned variance put 2C channels out; only the first C, the prediction, are used.
    """

    def __init__(self, unet: torch.nn.Module, schedule: Schedule, dtype: torch.dtype = torch.float32) -> None:
        self.unet = unet
        self.schedule = schedule
        self.dtype = dtype
        self.device = next(unet.parameters()).device

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """See `Denoiser.predict`."""
        out: Tensor = self.unet(x_t.to(self.dtype), t - 1, return_dict=False)[0]
        return out[:, : x_t.shape[1]].float()


def at(values: Array, t: Tensor) -> Tensor:
    """`values` [T + 1] at each of t [N], float64 on the CPU (some devices have no float64)."""
    return torch.from_numpy(values)[t.cpu()]


def coefficients(schedule: Schedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar_t) and sqrt(1 - abar_t) shaped to multiply `like` [N, ...]; rounded from float64."""
    abar = at(schedule.abar, t).view((-1,) + (1,) * (like.dim() - 1))
    return abar.sqrt().to(like.dtype).to(like.device), (1.0 - abar).sqrt().to(like.dtype).to(like.device)


def add_noise(schedule: Schedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise for t [N] in 1..T."""
    signal, sigma = coefficients(schedule, t, x0)
    return signal * x0 + sigma * noise


def to_noise(schedule: Schedule, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The predicted noise from a raw eps-, v- or sample-prediction (Salimans & Ho 2022)."""
    if schedule.prediction_type == "epsilon":
        return raw
    signal, sigma = coefficients(schedule, t, x_t)
    if schedule.prediction_type == "v_prediction":
        return signal * raw + sigma * x_t
    return (x_t - signal * raw) / sigma


def to_sample(schedule: Schedule, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The predicted clean image from a raw eps-, v- or sample-prediction."""
    signal, sigma = coefficients(schedule, t, x_t)
    if schedule.prediction_type == "sample":
        return raw
    if schedule.prediction_type == "v_prediction":
        return signal * x_t - sigma * raw
    return (x_t - sigma * raw) / signal


def from_noise(schedule: Schedule, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The raw output that says `noise`: the inverse of `to_noise`, undefined where abar_t = 0."""
    if schedule.prediction_type == "epsilon":
        return noise
    signal, sigma = coefficients(schedule, t, x_t)
    if schedule.prediction_type == "v_prediction":
        return (noise - sigma * x_t) / signal
    return (x_t - sigma * noise) / signal


def training_target(schedule: Schedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the raw output is trained towards: the noise, v, or the clean image."""
    if schedule.prediction_type == "epsilon":
        return noise
    if schedule.prediction_type == "sample":
        return x0
    signal, sigma = coefficients(schedule, t, x0)
    return signal * noise - sigma * x0
