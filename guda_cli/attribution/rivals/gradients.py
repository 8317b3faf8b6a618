"""Per-sample gradients of a denoiser, projected: features of trak, d-trak and das (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from guda_cli.attribution.rivals.projection import Projection
from guda_cli.diffusion.cells import Cell, Samples, batches, cells
from guda_cli.diffusion.denoiser import Network, to_noise
from guda_cli.diffusion.functional import FunctionalNetwork, how_many, sample_gradients
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import UsageError, unknown

Features = npt.NDArray[np.float32]

# What is differentiated, from the predicted noise and the true one of one image.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "loss": lambda predicted, noise: (predicted - noise).square().mean(),  # TRAK (Park et al. 2023)
    "square": lambda predicted, noise: predicted.square().mean(),  # D-TRAK (Zheng et al. 2024)
    "mean": lambda predicted, noise: predicted.mean(),  # DAS (Lin et al. 2025)
}
# A chunk's gradients and the copies that the convolutions' batched backward makes of them: measured.
BYTES_A_PARAMETER = 16
MEMORY = 512 << 20  # bytes of a chunk


def parameter_count(denoiser: Network) -> int:
    """P: how many numbers a gradient of the denoiser's network has."""
    return sum(value.numel() for value in denoiser.network.parameters())


def evenly_spaced(T: int, count: int) -> list[int]:
    """The middles of `count` equal parts of 1..T: timesteps for gradients. UsageError beyond 1..T parts."""
    if not 1 <= count <= T:
        raise UsageError(f"{count} timesteps for gradients", why=f"the process has {T}", fix=f"use 1 to {T}")
    return [1 + int((i + 0.5) * T / count) for i in range(count)]


def gradient_features(
    denoiser: Network, x0: Tensor, digests: Sequence[str], *,
    objective: str, timesteps: Sequence[int], draws: int = 1, projection: Projection, seed: int,
    unit_norm: bool = False, cond: Tensor | None = None, chunk: int | None = None,
    progress: Callable[[int], None] | None = None,
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
    weights, value = network.weights(), _value_of(network, OBJECTIVES[objective])
    out = torch.zeros(len(x0), projection.dims)
    size = chunk or how_many(BYTES_A_PARAMETER * projection.parameters, MEMORY)
    samples, jobs = Samples(x0, tuple(digests), cond), _cells(denoiser, digests, timesteps, draws)
    for batch in batches(denoiser, samples, jobs, seed=seed, batch_size=size):
        parts = list(sample_gradients(value, weights, batch.x_t, batch.noise, batch.t, batch.cond).values())
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
    denoiser: Network, x0: Tensor, digests: Sequence[str], *,
    timesteps: Sequence[int], draws: int = 1, seed: int, batch_size: int = 256,
    cond: Tensor | None = None, profile: bool = False, progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Relative residual norm |eps_theta - eps| / |eps| [N] of images x0, mean over timesteps and draws.

    The factor r_i of das (Lin et al. 2025). There it is the residual itself; this variant is divided by
    the length of the noise, so that it is a number near 1 for a network that knows nothing, near 0 for a
    perfect one, whatever the image's size. With `profile` as in the authors' code: |eps_theta - eps| over
    timesteps and draws as a vector of length 1, and the mean of that. It says how evenly an image's residuals
    are spread over t, not how large they are. Arguments and errors are as for `gradient_features`.
    """
    network = _still(denoiser)
    out = torch.zeros(len(x0) * len(timesteps) * draws, dtype=torch.float64)
    samples, jobs = Samples(x0, tuple(digests), cond), _cells(denoiser, digests, timesteps, draws)
    for batch in batches(denoiser, samples, jobs, seed=seed, batch_size=batch_size):
        raw = network(batch.x_t, batch.t, batch.cond)
        error = to_noise(denoiser.schedule, raw, batch.x_t, batch.t) - batch.noise
        length = _lengths([error.cpu().double()])
        out[batch.where] = length if profile else length / _lengths([batch.noise.cpu().double()])
        if progress:
            progress(len(batch.rows))
    cells = out.view(len(x0), -1)
    if profile:
        cells = torch.nn.functional.normalize(cells, dim=1)
    return np.asarray(cells.mean(dim=1).numpy())


def _value_of(
    network: FunctionalNetwork, measure: Callable[[Tensor, Tensor], Tensor]
) -> Callable[..., Tensor]:
    """`measure` at a batch of one image as a function of the weights, x_t, noise, t and condition."""

    def value(weights: Weights, x_t: Tensor, noise: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        raw = network.predict(weights, x_t, t, cond)
        return measure(to_noise(network.schedule, raw, x_t, t)[0], noise[0])

    return value


def _still(denoiser: Network) -> FunctionalNetwork:
    """The denoiser's network; ValueError if a part of it is in training mode (dropout would be noise)."""
    if any(module.training for module in denoiser.network.modules()):
        raise ValueError("gradients are of a network in evaluation mode: call eval() first")
    return FunctionalNetwork(denoiser)


def _cells(denoiser: Network, digests: Sequence[str], timesteps: Sequence[int], draws: int) -> list[Cell]:
    """Every (image, timestep, draw), image by image; UsageError for timesteps beyond 1..T."""
    T = denoiser.schedule.T
    if not timesteps or draws < 1 or min(timesteps) < 1 or max(timesteps) > T:
        raise UsageError(f"timesteps {list(timesteps)} with {draws} draws", why=f"the process has 1 to {T}")
    return cells(digests, np.tile(np.asarray(timesteps, dtype=np.int64), (draws, 1)), by_time=True)


def _lengths(parts: Sequence[Tensor]) -> Tensor:
    """Euclidean length [k] of vectors given in parts [k, ...]; 1 for a zero vector, which stays zero."""
    norms = torch.stack([torch.linalg.vector_norm(part.reshape(len(part), -1), dim=1) for part in parts])
    length = torch.linalg.vector_norm(norms, dim=0)
    return torch.where(length > 0, length, torch.ones_like(length))
