"""Per-sample gradients of a denoiser, projected: features of trak, d-trak and das (method.md section 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from guda_cli.attribution.rivals.projection import Projection
from guda_cli.diffusion.denoiser import Denoiser, add_noise, to_noise
from guda_cli.diffusion.noise import QueryNoise
from guda_cli.errors import UsageError, unknown

Features = npt.NDArray[np.float32]
Progress = Callable[[int], None]

# What is differentiated, from the predicted noise and the true one of one image.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "loss": lambda predicted, noise: (predicted - noise).square().mean(),  # TRAK (Park et al. 2023)
    "square": lambda predicted, noise: predicted.square().mean(),  # D-TRAK (Zheng et al. 2024)
    "mean": lambda predicted, noise: predicted.mean(),  # DAS (Lin et al. 2025)
}
# A chunk's gradients and the copies that the convolutions' batched backward makes of them: measured.
_BYTES_A_PARAMETER = 16
_LARGEST_CHUNK = 64


@dataclass(frozen=True, eq=False)
class _Batch:
    """Noised images: row of each in the features [k], x_t and noise [k, C, H, W], t [k], condition."""

    rows: Tensor
    x_t: Tensor
    noise: Tensor
    t: Tensor
    cond: Tensor | None


class _Network(nn.Module):
    """`predict` as a module holding the denoiser's networks, so that their parameters can be replaced."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        if isinstance(denoiser, nn.Module):
            self.add_module("denoiser", denoiser)
        else:
            for name, value in vars(denoiser).items():
                if isinstance(value, nn.Module):
                    self.add_module(name, value)
        self._predict = denoiser.predict

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """The raw prediction; without a condition the network is called as an unconditional one."""
        return self._predict(x_t, t) if cond is None else self._predict(x_t, t, cond)


def parameter_count(denoiser: Denoiser) -> int:
    """P: how many numbers a gradient of the denoiser's networks has."""
    return sum(value.numel() for value in _Network(denoiser).parameters())


def evenly_spaced(T: int, count: int) -> list[int]:
    """The middles of `count` equal parts of 1..T: timesteps for gradients. UsageError beyond 1..T parts."""
    if not 1 <= count <= T:
        raise UsageError(f"{count} timesteps for gradients", why=f"the process has {T}", fix=f"use 1 to {T}")
    return [1 + int((i + 0.5) * T / count) for i in range(count)]


def chunk_size(parameters: int, memory: int = 512 << 20) -> int:
    """How many per-sample gradients of that many parameters `memory` bytes hold: 1 to 64.

    Measured on one core with 0.6 million parameters: a sample costs 20 times its share of a
    plain batch's forward and backward in chunks of one, 6 times in chunks of 8, 2 to 4 times in chunks of
    32 and a fifth less in chunks of 64. Never under 1, so a large model takes what one gradient needs.
    """
    return max(1, min(_LARGEST_CHUNK, memory // (_BYTES_A_PARAMETER * parameters)))


def gradient_features(
    denoiser: Denoiser, x0: Tensor, digests: Sequence[str], *,
    objective: str, timesteps: Sequence[int], draws: int = 1, projection: Projection, seed: int,
    unit_norm: bool = False, cond: Tensor | None = None, chunk: int | None = None,
    progress: Progress | None = None,
) -> Features:  # fmt: skip
    """Mean projected gradient [N, projection.dims] of images x0 [N, C, H, W] in [-1, 1].

    The mean is over `timesteps` (1..T) and `draws` of noise. `objective` is one of `OBJECTIVES`, of
    the predicted noise whatever the network predicts. With `unit_norm` each (timestep, draw)'s gradient is
    divided by its length over all parameters first (Lin et al. 2025): else the noisiest or the cleanest
    timesteps outweigh the others. Noise depends on (digest, seed, t, draw) alone and every gradient
    is a sample's own, so the features do not depend on the other images, their order or `chunk`.
    `cond` [N, ...] is as for `Denoiser.predict`; `progress` hears how many gradients were added.
    UsageError for an unknown objective or timesteps beyond 1..T.
    """
    if objective not in OBJECTIVES:
        raise UsageError(unknown("gradient objective", objective, OBJECTIVES))
    network = _still(denoiser)
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    of_one = _gradient_of(denoiser, network, OBJECTIVES[objective])
    gradients = vmap(of_one, in_dims=(None, 0, 0, 0, None if cond is None else 0))
    out = torch.zeros(len(x0), projection.dims)
    size = chunk or chunk_size(projection.parameters)
    for batch in _batches(denoiser, x0, digests, timesteps, draws, seed, size, cond):
        with sdpa_kernel(SDPBackend.MATH):  # the others have no rule for vmap: it would loop over samples
            parts = list(gradients(parameters, batch.x_t, batch.noise, batch.t, batch.cond).values())
        features = projection(parts)
        if unit_norm:
            features /= _lengths(parts)[:, None]
        out.index_add_(0, batch.rows, features.float().cpu())
        if progress:
            progress(len(batch.rows))
    result: Features = (out / (len(timesteps) * draws)).numpy()
    return result


@torch.inference_mode()
def residuals(
    denoiser: Denoiser, x0: Tensor, digests: Sequence[str], *,
    timesteps: Sequence[int], draws: int = 1, seed: int, batch_size: int = 256,
    cond: Tensor | None = None, progress: Progress | None = None,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Relative residual norm |eps_theta - eps| / |eps| [N] of images x0, mean over timesteps and draws.

    The factor r_i of das (Lin et al. 2025). There it is the residual itself; this variant is divided by
    the length of the noise, so that it is a number near 1 for a network that knows nothing, near 0 for a
    perfect one, whatever the image's size. The variant of squared scores takes
    (phi_q^T (Phi^T Phi + lambda I)^-1 phi_i r_i)^2, hence r_i^2: `influence.scores(squared=True)`.
    Arguments and errors are as for `gradient_features`.
    """
    network = _still(denoiser)
    out = torch.zeros(len(x0), dtype=torch.float64)
    for batch in _batches(denoiser, x0, digests, timesteps, draws, seed, batch_size, cond):
        raw = network(batch.x_t, batch.t, batch.cond)
        error = to_noise(denoiser.schedule, raw, batch.x_t, batch.t) - batch.noise
        ratio = _lengths([error.cpu().double()]) / _lengths([batch.noise.cpu().double()])
        out.index_add_(0, batch.rows, ratio)
        if progress:
            progress(len(batch.rows))
    return np.asarray((out / (len(timesteps) * draws)).numpy())


def _gradient_of(
    denoiser: Denoiser, network: _Network, measure: Callable[[Tensor, Tensor], Tensor]
) -> Callable[..., dict[str, Tensor]]:
    """Gradient by parameter of `measure` at one image: f(parameters, x_t, noise, t, cond)."""

    def value(parameters: dict[str, Tensor], x_t: Tensor, noise: Tensor, t: Tensor, cond: Any) -> Tensor:
        x_t, t = x_t[None], t[None]
        raw = functional_call(network, parameters, (x_t, t, None if cond is None else cond[None]))
        return measure(to_noise(denoiser.schedule, raw, x_t, t)[0], noise)

    return grad(value)


def _still(denoiser: Denoiser) -> _Network:
    """The denoiser's networks; ValueError if one is in training mode (dropout would be noise of its own)."""
    network = _Network(denoiser)
    if any(module.training for child in network.children() for module in child.modules()):
        raise ValueError("gradients are of a network in evaluation mode: call eval() first")
    return network


def _batches(
    denoiser: Denoiser, x0: Tensor, digests: Sequence[str], timesteps: Sequence[int], draws: int, seed: int,
    size: int, cond: Tensor | None,
) -> Iterator[_Batch]:  # fmt: skip
    """Every (image, timestep, draw), image by image, in batches of `size`."""
    T = denoiser.schedule.T
    if not timesteps or draws < 1 or min(timesteps) < 1 or max(timesteps) > T:
        raise UsageError(f"timesteps {list(timesteps)} with {draws} draws", why=f"the process has 1 to {T}")
    cells = [(i, digest, t, d) for i, digest in enumerate(digests) for t in timesteps for d in range(draws)]
    noises = QueryNoise(seed)
    for start in range(0, len(cells), size):
        part = cells[start : start + size]
        rows = torch.tensor([i for i, *_ in part])
        noise = noises.fill(
            torch.empty(len(part), *x0.shape[1:]), [(digest, t, d) for _, digest, t, d in part]
        )
        noise = noise.to(denoiser.device)
        t = torch.tensor([t for _, _, t, _ in part], device=denoiser.device)
        x_t = add_noise(denoiser.schedule, x0[rows].to(denoiser.device), noise, t)
        yield _Batch(rows, x_t, noise, t, None if cond is None else cond[rows].to(denoiser.device))


def _lengths(parts: Sequence[Tensor]) -> Tensor:
    """Euclidean length [k] of vectors given in parts [k, ...]; 1 for a zero vector, which stays zero."""
    norms = torch.stack([torch.linalg.vector_norm(part.reshape(len(part), -1), dim=1) for part in parts])
    length = torch.linalg.vector_norm(norms, dim=0)
    return torch.where(length > 0, length, torch.ones_like(length))
