"""A denoiser as a function of its weights, and gradients sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError

LARGEST = 64
"""Per-sample gradients at once, at most."""


class FunctionalNetwork(torch.nn.Module):
    """`predict` of a denoiser as a module's forward, so that its weights can be exchanged for a call.

    The network is never written to: it leaves every call bit for bit as it came.
    """

    def __init__(self, denoiser: Network) -> None:
        super().__init__()
        self.network, self.denoiser = denoiser.network, denoiser
        self.schedule, self.device = denoiser.schedule, denoiser.device

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The raw prediction for x_t [B, C, H, W] at t [B] (and conditions `cond` [B, ...])."""
        return self.denoiser.predict(x_t, t) if cond is None else self.denoiser.predict(x_t, t, cond)

    def weights(self, keep: Callable[[str], bool] = lambda name: True) -> Weights:
        """The parameters whose name (as in `network`) `keep` accepts, detached; DataError when none is."""
        found = {name: p.detach() for name, p in self.network.named_parameters() if keep(name)}
        if not found:
            raise DataError("the parameter subset holds no parameter of this network", fix="--params full")
        return found

    def predict(self, weights: Mapping[str, Tensor], *inputs: Tensor | None) -> Tensor:
        """`forward` with `weights` in place of the parameters of those names."""
        swapped = {f"network.{name}": value for name, value in weights.items()}
        out: Tensor = functional_call(self, swapped, inputs)
        return out


@contextmanager
def evaluating(network: FunctionalNetwork) -> Iterator[None]:
    """No dropout inside; every module's mode as before afterwards."""
    modes = [(module, module.training) for module in network.network.modules()]
    network.network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def sample_gradients(
    value: Callable[..., Tensor],
    weights: Mapping[str, Tensor],
    *inputs: Tensor | None,
    then: Callable[[Weights], Any] = lambda gradients: gradients,
) -> Any:
    """The gradient by `weights` of `value` at each of B samples: [B, *shape] by name.

    `value(weights, *ones)` is a scalar of a batch of one: each of `inputs` [B, ...] as [1, ...]. `then` sees
    one sample's gradients, without the axis of samples, and may make something smaller of them.
    """

    def of_one(own: Weights, *one: Tensor | None) -> Any:
        ones = tuple(None if each is None else each[None] for each in one)
        return then(grad(value)(own, *ones))

    dims = (None, *(None if each is None else 0 for each in inputs))
    # attention as plain products: the fused kernels have no rule for vmap, which would loop over samples
    with sdpa_kernel(SDPBackend.MATH):
        try:
            return vmap(of_one, in_dims=dims)(dict(weights), *inputs)
        except RuntimeError as err:
            if "vmap" not in str(err):
                raise
        # how a network that reads texts of several lengths goes on hangs on them, for which vmap has no rule
        count = next(len(each) for each in inputs if each is not None)
        found = [
            of_one(dict(weights), *(None if each is None else each[i] for each in inputs))
            for i in range(count)
        ]
    return tree_map(lambda *same: torch.stack(same), *found)


def how_many(each: int, memory: int, most: int = LARGEST) -> int:
    """How many per-sample gradients of `each` bytes fit into `memory` bytes: 1 to `most`.

    Measured on one core with 0.6 million parameters: a sample costs 20 times its share of a plain batch's
    forward and backward in chunks of one, 6 times in chunks of 8, 2 to 4 times in chunks of 32 and a fifth
    less in chunks of 64. Never under 1, so a large model takes what one gradient needs.
    """
    return max(1, min(most, memory // max(1, each)))
