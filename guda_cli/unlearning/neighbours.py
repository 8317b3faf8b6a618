"""Nearest retain images of every forget image, by pixel distance."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(forget: Tensor, retain: Tensor, k: int, *, block: int = 2048) -> Tensor:
    """Row numbers in `retain` [R, D] of the k nearest rows to each of `forget` [F, D]: int64 [F, k].

    Squared Euclidean distance, ties to the lower row; k is cut to R. Memory is block x block.
    """
    out = []
    retain_squares = retain.square().sum(1)
    for rows in torch.split(forget, block):
        best = torch.empty(len(rows), 0)
        index = torch.empty(len(rows), 0, dtype=torch.int64)
        for start in range(0, len(retain), block):
            part = retain[start : start + block]
            distance = retain_squares[start : start + block] - 2.0 * rows @ part.T
            columns = torch.arange(start, start + len(part)).expand(len(rows), -1)
            best, index = _smallest(torch.cat([best, distance], 1), torch.cat([index, columns], 1), k)
        ranked = best.argsort(dim=1, stable=True)
        out.append(index.gather(1, ranked))
    return torch.cat(out)


def _smallest(values: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row with their `index`, in the order they stand; the first of equal ones.

    `topk` alone picks any of equal values.
    """
    k = min(k, values.shape[1])
    limit = values.topk(k, dim=1, largest=False).values.amax(1, keepdim=True)
    below, equal = values < limit, values == limit
    room = k - below.sum(1, keepdim=True)
    chosen = below | (equal & (equal.cumsum(1) <= room))
    return values[chosen].view(-1, k), index[chosen].view(-1, k)
