"""The maths of anchor prompts: which style takes a group's place (method.md section 4, AWSS).

Everything here is float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def mean_embeddings(table: Tensor, owned: Sequence[Sequence[int]]) -> Tensor:
    """Mean unit embedding [B, D] of the rows of `table` [M, D] that each of B owners has, 0 without any.

    Of a style's descriptors it is the style's prototype p_s, of a prompt's own descriptors its e(c).
    """
    unit = torch.nn.functional.normalize(table.cpu().double(), dim=1)
    owner = torch.tensor([i for i, rows in enumerate(owned) for _ in rows], dtype=torch.int64)
    row = torch.tensor([j for rows in owned for j in rows], dtype=torch.int64)
    total = torch.zeros(len(owned), table.shape[1], dtype=torch.float64).index_add_(0, owner, unit[row])
    return total / torch.bincount(owner, minlength=len(owned)).clamp_min(1).unsqueeze(1)


def awss(e: Tensor, p: Tensor, retained: Tensor, beta: float, eta: float) -> Tensor:
    """pi [B, S] = (1 - eta) softmax_s(beta <e, p_s>) + eta / |S_retain| over `retained` [S], 0 elsewhere.

    `e` [B, D] are mean embeddings of prompts, `p` [S, D] of styles; in log space. ValueError when no style is
    retained.
    """
    if not bool(retained.any()):
        raise ValueError("no style is retained")
    score = (beta * (e.double() @ p.double().T)).masked_fill(~retained, -math.inf)
    share = torch.tensor(eta, dtype=torch.float64)
    even = torch.zeros_like(score).masked_fill(~retained, -math.inf) - math.log(int(retained.sum()))
    return torch.logaddexp(torch.log1p(-share) + torch.log_softmax(score, dim=1), share.log() + even).exp()


def draw_styles(pi: Tensor, u: Tensor) -> Tensor:
    """One style an entry [F] from probabilities `pi` [F, S], by uniform draws `u` [F, S] in [0, 1).

    Gumbel-max (Gumbel 1954), with a draw for each style: where another style is left out, only the entries
    that had drawn it change.
    """
    return (pi.log() - torch.log(-u.log())).argmax(1)


def draw_descriptors(counts: Tensor, u: Tensor, number: int) -> Tensor:
    """`number` different descriptors an entry, as places among its style's `counts` [F]: int64 [F, number].

    `u` [F, M] are uniform draws, M at least the largest count; -1 fills up where a style has fewer.
    """
    order = u.masked_fill(torch.arange(u.shape[1]) >= counts.unsqueeze(1), math.inf).argsort(1)[:, :number]
    return order.masked_fill(order >= counts.unsqueeze(1), -1)
