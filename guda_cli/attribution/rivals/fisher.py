"""The diagonal of the empirical Fisher information of the denoising loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from guda_cli.attribution.rivals.cell_losses import batches, cell_weights
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.denoiser import squared_error
from guda_cli.diffusion.functional import FunctionalNetwork, evaluating, how_many, sample_gradients
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.networks import Weights

GRADIENT_BYTES = 256 << 20
"""Per-sample gradients held at once."""


@dataclass(frozen=True, eq=False)
class Fisher:
    """`diagonal` by parameter name, each of the parameter's shape; what it cost in forward-equivalents."""

    diagonal: Mapping[str, Tensor]
    forwards: float

    def damped(self, damping: float, by_layer: bool = False) -> dict[str, Tensor]:
        """F + damping * mean(F), the mean over all entries of all tensors (1 where F is all zero).

        Relative, so that it does not change when the loss is multiplied by a constant. With `by_layer` each
        tensor has its own mean; one that is all zero, and so has no gradient either, has that of all.
        """
        sizes = {name: value.numel() for name, value in self.diagonal.items()}
        sums = {name: float(value.double().sum()) for name, value in self.diagonal.items()}
        mean = sum(sums.values()) / sum(sizes.values())
        extra = damping * mean if mean > 0.0 else 1.0
        own = {name: damping * sums[name] / sizes[name] for name in sizes if by_layer and sums[name] > 0.0}
        return {name: value + own.get(name, extra) for name, value in self.diagonal.items()}


def sample_bytes(weights: Weights) -> int:
    """Bytes of one sample's gradients by `weights`."""
    return sum(value.numel() * value.element_size() for value in weights.values())


def diagonal_fisher(
    network: FunctionalNetwork,
    weights: Weights,
    samples: Samples,
    at: Grid,
    *,
    seed: int,
    batch_size: int = 64,
    budget: int = GRADIENT_BYTES,
) -> Fisher:
    """F_j = mean over `samples` (a stated subset of the training images), t and draws of (dL/dw_j)^2.

    L is the loss of one (image, t, draw): the Fisher information of a Gaussian model up to a constant, used
    as in elastic weight consolidation (Kirkpatrick et al. 2017) and by Wang et al. 2024.
    Gradients are taken sample by sample, at most `budget` bytes at once. Does not depend on the order of
    `samples` beyond rounding.
    """
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    share = cell_weights(at).repeat(len(samples)) / len(samples)
    size = how_many(sample_bytes(weights), budget, batch_size)

    def loss(own: Weights, x_t: Tensor, t: Tensor, target: Tensor, cond: Tensor | None) -> Tensor:
        return squared_error(network.predict(own, x_t, t, cond), target)[0]

    with evaluating(network):
        for batch in batches(network, samples, at, seed=seed, batch_size=size):
            counts = share[batch.where].to(batch.x_t.device)
            found = sample_gradients(loss, weights, batch.x_t, batch.t, batch.target, batch.cond)
            for name, each in found.items():
                mean = torch.tensordot(counts.to(each.dtype), each.detach().square_(), dims=1)
                total[name].add_(mean)
    return Fisher(total, 3.0 * len(samples) * at.rows)
