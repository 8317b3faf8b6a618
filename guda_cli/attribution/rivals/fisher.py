"""The diagonal of the empirical Fisher information of the denoising loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from guda_cli.attribution.rivals.cell_losses import (
    Network,
    Rows,
    Samples,
    Weights,
    batches,
    cell_weights,
    evaluating,
    row_losses,
)
from guda_cli.diffusion.grid import Grid

GRADIENT_BYTES = 256 << 20
"""Per-sample gradients held at once."""


@dataclass(frozen=True, eq=False)
class Fisher:
    """`diagonal` by parameter name, each of the parameter's shape; what it cost in forward-equivalents."""

    diagonal: Mapping[str, Tensor]
    forwards: float

    def damped(self, damping: float) -> dict[str, Tensor]:
        """F + damping * mean(F), the mean over all entries of all tensors (1 where F is all zero).

        Relative, so that it does not change when the loss is multiplied by a constant.
        """
        count = sum(value.numel() for value in self.diagonal.values())
        mean = sum(float(value.double().sum()) for value in self.diagonal.values()) / count
        extra = damping * mean if mean > 0.0 else 1.0
        return {name: value + extra for name, value in self.diagonal.items()}


def chunk_rows(weights: Weights, budget: int = GRADIENT_BYTES) -> int:
    """How many per-sample gradients of `weights` fit into `budget` bytes; at least one."""
    each = sum(value.numel() * value.element_size() for value in weights.values())
    return max(1, budget // max(1, each))


def sample_gradients(network: Network, weights: Weights, rows: Rows) -> dict[str, Tensor]:
    """Gradients of each row's loss with respect to `weights`: [B, *shape] by name (vmap of grad)."""

    def loss(weights: Weights, x_t: Tensor, t: Tensor, target: Tensor, labels: Tensor | None) -> Tensor:
        one = Rows(x_t[None], t[None], target[None], None if labels is None else labels[None])
        return row_losses(network, weights, one)[0]

    dims = (None, 0, 0, 0, None if rows.labels is None else 0)
    # attention as plain products: the fused kernels cannot be mapped over samples
    with sdpa_kernel(SDPBackend.MATH):
        found: dict[str, Tensor] = vmap(grad(loss), in_dims=dims)(
            dict(weights), rows.x_t, rows.t, rows.target, rows.labels
        )
    return found


def diagonal_fisher(
    network: Network,
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
    size = min(batch_size, chunk_rows(weights, budget))
    with evaluating(network):
        for where, rows in batches(network, samples, at, seed=seed, batch_size=size):
            counts = share[where].to(rows.x_t.device)
            for name, each in sample_gradients(network, weights, rows).items():
                mean = torch.tensordot(counts.to(each.dtype), each.detach().square_(), dims=1)
                total[name].add_(mean)
    return Fisher(total, 3.0 * len(samples) * at.rows)
