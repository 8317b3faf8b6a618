"""What scoring, training and unlearning need of a network: a prediction of noise, and its target."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from guda_cli.diffusion.schedule import Array, Schedule

NO_FLOAT64 = ("mps",)
"""Devices that have no float64: what is summed in it is summed on the CPU there."""


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


def exact(values: Tensor) -> Tensor:
    """`values` in float64, on their device where it has that, else on the CPU."""
    return (values.cpu() if values.device.type in NO_FLOAT64 else values).double()


def to_x0(values: Tensor) -> Tensor:
    """x0 of stored images [N, C, H, W]: uint8 pixels come to lie in [-1, 1], latents are left as they are."""
    return values.float() / 127.5 - 1.0 if values.dtype == torch.uint8 else values


def at(values: Array, t: Tensor) -> Tensor:
    """`values` [T + 1] at each of t [N], float64 on the CPU."""
    return torch.from_numpy(values)[t.cpu()]


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what scoring asked for first, training may use in a graph
def _on(schedule: Schedule, name: str, device: torch.device) -> Tensor:
    return torch.from_numpy(getattr(schedule, name)).to(device)


def level(schedule: Schedule, name: str, t: Tensor) -> Tensor:
    """The schedule's array `name` [T + 1] at each of t [N], float64 on t's device, which waits for nothing.

    On the CPU where the device has no float64.
    """
    if t.device.type in NO_FLOAT64:
        t = t.cpu()
    return _on(schedule, name, t.device)[t]


def coefficients(schedule: Schedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """signal_t and sigma_t shaped to multiply `like` [N, ...]; rounded from float64."""
    pair = _pair(schedule, t, like)
    return pair.signal, pair.sigma


def add_noise(schedule: Schedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = signal_t x0 + sigma_t noise for t [N] in 1..T."""
    signal, sigma = coefficients(schedule, t, x0)
    return signal * x0 + sigma * noise


class _Pair(NamedTuple):
    """raw = a x0 + b noise at each of some times, beside x_t = signal x0 + sigma noise."""

    signal: Tensor
    sigma: Tensor
    a: Tensor
    b: Tensor
    determinant: Tensor
    """a sigma - b signal, taken in float64: for v it is -(signal^2 + sigma^2), in float32 exactly -1."""


def _pair(schedule: Schedule, t: Tensor, like: Tensor) -> _Pair:
    """Each shaped to multiply `like` [N, ...]; rounded from float64."""
    found = _levels(schedule, like.dtype, like.device)[:, t.to(like.device)]
    return _Pair(*found.view(len(found), -1, *(1,) * (like.dim() - 1)))


@torch.inference_mode(False)  # training may read what was first asked for in scoring
def _levels(schedule: Schedule, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The fields of `_Pair` at every t, [5, T + 1] on `device`: there once, so that no step waits for it."""
    found: Tensor | None = schedule.on_devices.get((dtype, device))
    if found is None:
        signal, sigma = torch.from_numpy(schedule.signal), torch.from_numpy(schedule.sigma)
        given = schedule.prediction.pair(signal, sigma)
        a, b = (torch.as_tensor(value, dtype=torch.float64).expand_as(signal) for value in given)
        values = torch.stack([signal, sigma, a, b, a * sigma - b * signal])
        found = schedule.on_devices[dtype, device] = values.to(dtype).to(device)
    return found


def to_noise(schedule: Schedule, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The predicted noise from a raw prediction, (a x_t - signal raw) / (a sigma - b signal)."""
    if schedule.prediction_type == "epsilon":
        return raw
    p = _pair(schedule, t, x_t)
    return (p.a * x_t - p.signal * raw) / p.determinant


def to_sample(schedule: Schedule, raw: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The predicted clean image from a raw prediction: (sigma raw - b x_t) / (a sigma - b signal)."""
    if schedule.prediction_type == "sample":
        return raw
    p = _pair(schedule, t, x_t)
    return (p.sigma * raw - p.b * x_t) / p.determinant


def from_noise(schedule: Schedule, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The raw output that says `noise`: the inverse of `to_noise`, undefined where there is no signal."""
    if schedule.prediction_type == "epsilon":
        return noise
    p = _pair(schedule, t, x_t)
    return (p.a * x_t - p.determinant * noise) / p.signal


def training_target(schedule: Schedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the raw output is trained towards: a x0 + b noise."""
    if schedule.prediction_type == "epsilon":
        return noise
    if schedule.prediction_type == "sample":
        return x0
    p = _pair(schedule, t, x0)
    return p.a * x0 + p.b * noise


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per pixel of every entry, [B]."""
    return (prediction - target).square().flatten(1).mean(1)
