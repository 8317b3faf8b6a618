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

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The raw prediction [N, C, H, W] for x_t [N, C, H, W] and t [N] (1..T).

        `cond` [N, ...] is what the network understands as a condition, one row an image: class indices
        int64 [N] for a `UNet2DModel`. None is the null condition of a conditional network. ValueError for a
        condition that the network cannot take, and for None where it has no null condition.
        """
        ...


class Network(Denoiser, Protocol):
    """A denoiser whose weights are those of one module, as training and unlearning need it."""

    network: torch.nn.Module
    null: int | None
    """The null condition's value; None where there is none."""


def to_x0(values: Tensor) -> Tensor:
    """x0 of stored images [N, C, H, W]: uint8 pixels come to lie in [-1, 1], latents are left as they are."""
    return values.float() / 127.5 - 1.0 if values.dtype == torch.uint8 else values


class UNetDenoiser:
    """Adapter of a diffusers `UNet2DModel`, unconditional or with class embeddings.

    Models with learned variance put 2C channels out; only the first C, the prediction, are used.
    The last of `num_class_embeds` classes is the null class (Ho & Salimans 2022) unless the
    configuration says `null_class: false`.
    """

    def __init__(
        self, network: torch.nn.Module, schedule: Schedule, dtype: torch.dtype = torch.float32
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.dtype = dtype
        self.device = next(network.parameters()).device
        config = getattr(network, "config", {})
        self.embeddings: int | None = config.get("num_class_embeds")
        """Number of class embeddings, the null class included; None for an unconditional network."""
        has_null = self.embeddings is not None and config.get("null_class", True)
        self.null: int | None = self.embeddings - 1 if self.embeddings and has_null else None
        """Index of the null class; None where there is none."""

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """See `Denoiser.predict`; `cond` are class indices int64 [N]."""
        labels = {} if self.embeddings is None and cond is None else {"class_labels": self._labels(t, cond)}
        out: Tensor = self.network(x_t.to(self.dtype), t - 1, return_dict=False, **labels)[0]
        return out[:, : x_t.shape[1]].float()

    def _labels(self, t: Tensor, cond: Tensor | None) -> Tensor:
        if self.embeddings is None:
            raise ValueError("a condition was given to an unconditional network")
        if cond is None:
            if self.null is None:
                raise ValueError("this network has no null class: every image needs a class")
            return torch.full_like(t, self.null)
        if cond.shape != t.shape or cond.dtype != torch.int64:
            raise ValueError(
                f"class labels must be int64 {list(t.shape)}, not {cond.dtype} {list(cond.shape)}"
            )
        return cond.to(self.device)


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


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per pixel of every entry, [B]."""
    return (prediction - target).square().flatten(1).mean(1)
