"""Networks compiled by torch: once for each number of rows, and for all models that come to lie in them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

WHOLE, BLOCKS = "whole", "blocks"
BIG = 200_000_000  # parameters from which on only blocks that repeat are compiled, where a network has any
SMALL = 20_000_000  # parameters up to which launches are the limit: they are recorded as CUDA graphs
PARTS = 8  # rows that are left over go through in parts of a batch, filled up
VARIANTS = 64  # shapes that one block is compiled for; torch gives up after 8


def way(network: nn.Module) -> str:
    """How a network is best compiled: WHOLE, or of a big one the BLOCKS that repeat, in much less time."""
    return BLOCKS if getattr(network, "_repeated_blocks", None) and _size(network) > BIG else WHOLE


class CompiledNetwork(nn.Module):
    """`network` compiled for batches of `rows` and of an eighth of them; what is less is filled up.

    It gives predictions as the network itself does, in a tuple.
    """

    def __init__(self, network: nn.Module, how: str, rows: int) -> None:
        super().__init__()
        self.network, self.rows, self.few = network, rows, max(1, rows // PARTS)
        self.config = getattr(network, "config", {})
        self._run: Any = network.forward
        with warnings.catch_warnings():  # of its own old ways
            warnings.simplefilter("ignore")
            from torch._dynamo import config  # a second, which who compiles nothing does not wait for

            config.recompile_limit = max(config.recompile_limit, VARIANTS)
            if how == BLOCKS:
                network.compile_repeated_blocks(dynamic=False)  # type: ignore[operator]
            else:
                on_cuda = next(network.parameters()).device.type == "cuda"
                mode = "reduce-overhead" if on_cuda and _size(network) < SMALL else None
                self._run = torch.compile(network.forward, mode=mode, dynamic=False)

    def forward(self, x: Tensor, t: Tensor, return_dict: bool = False, **told: Tensor) -> tuple[Tensor]:
        """The prediction [N, C, H, W] for x [N, C, H, W], t [N] and what the network is told [N, ...]."""
        size = self.rows if len(x) > self.rows - self.few else self.few
        parts = []
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            part = [value[rows] for value in (x, t, *told.values())]
            parts.append(self._padded(part, size, list(told)))
        return (torch.cat(parts) if len(parts) > 1 else parts[0],)

    def _padded(self, part: list[Tensor], size: int, names: list[str]) -> Tensor:
        """The prediction for up to `size` rows; the last row stands for those that lack."""
        count = len(part[0])
        if count < size:
            part = [torch.cat([v, v[-1:].expand(size - count, *v.shape[1:])]) for v in part]
        x, t, *values = part
        told = dict(zip(names, values, strict=True))
        with warnings.catch_warnings():  # the compiler's advice is about settings that are chosen on purpose
            warnings.simplefilter("ignore")
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            out = self._run(x.contiguous(memory_format=torch.channels_last), t, return_dict=False, **told)
        found: Tensor = out[0][:count]
        return found.clone()  # a CUDA graph writes the next prediction to the same place


def _size(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())
