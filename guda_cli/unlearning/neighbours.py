"""Nearest retain images of every forget image, by pixel distance."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(forget: Tensor, retain: Tensor, k: int, *, block: int = 2048) -> Tensor:
    """Row numbers in `retain` [R, D] of the k nearest rows to each of `forget` [F, D]: int64 [F, k].

    Squared Euclidean distance, ties to the lower row; k is cut to R. Memory is block x block.
    """
    k = min(k, len(retain))
    out = []
    retain_squares = retain.square().sum(1)
    for rows in torch.split(forget, block):
        best = torch.full((len(rows), k), float("inf"))
        index = torch.zeros((len(rows), k), dtype=torch.int64)
        for start in range(0, len(retain), block):
            part = retain[start : start + block]
            distance = retain_squares[start : start + block] - 2.0 * rows @ part.T
            columns = torch.arange(start, start + len(part)).expand(len(rows), -1)
            merged = torch.cat([best, distance], 1)
            best, order = merged.topk(k, dim=1, largest=False)
            index = torch.cat([index, columns], 1).gather(1, order)
        ranked = best.argsort(dim=1, stable=True)
        out.append(index.gather(1, ranked))
    return torch.cat(out)
