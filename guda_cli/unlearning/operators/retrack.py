"""ReTrack: redirect the group's noisy images to what a retain-only denoiser would say.

Shi et al. 2025 (arXiv 2509.13007); GUDA-U of Murata et al. 2026.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Denoiser, coefficients, to_x0
from guda_cli.diffusion.schedule import Schedule
from guda_cli.diffusion.transfer import sent
from guda_cli.training.stream import oriented
from guda_cli.unlearning import catalog
from guda_cli.unlearning.operators.base import ForgetBatch, Problem
from guda_cli.unlearning.operators.redirect import Redirect, Redirecting

BLOCK = 1 << 26  # values of x0 at once, in float32
RATIO_BOUND = 5.0  # largest density ratio of an entry, in units of the step's mean


def neighbour_noise(schedule: Schedule, x_t: Tensor, t: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
    """eps_r [B, K, ...] = (x_t - sqrt(abar_t) a_r) / sqrt(1 - abar_t) and its weights w_r [B, K].

    `neighbours` [B, K, C, H, W]. The exponent -||x_t - sqrt(abar_t) a_r||^2 / (2 (1 - abar_t)) is
    about -dim/2, so the softmax is taken in log space, in float64: exponentiating it as it stands gives 0
    for every neighbour at image size.
    """
    signal, sigma = coefficients(schedule, t, neighbours)
    eps = (x_t.unsqueeze(1) - signal * neighbours) / sigma
    wide = eps.cpu() if eps.device.type == "mps" else eps  # which has no float64
    exponent = -0.5 * wide.double().square().flatten(2).sum(2)
    return eps, torch.softmax(exponent, dim=1).to(x_t.dtype).to(x_t.device)


def target_noise(
    schedule: Schedule, x_t: Tensor, t: Tensor, neighbours: Tensor, noise: Tensor, cap: float | None = None
) -> Tensor:
    """eps_bar [B, C, H, W] = sum_r w_r eps_r; `cap` limits each ||eps_r - noise||."""
    eps, weights = neighbour_noise(schedule, x_t, t, neighbours)
    if cap is not None:
        shift = eps - noise.unsqueeze(1)
        length = shift.flatten(2).norm(dim=2).clamp_min(1e-12)
        eps = noise.unsqueeze(1) + shift * (cap / length).clamp(max=1.0).view(*length.shape, 1, 1, 1)
    return torch.einsum("bk,bkchw->bchw", weights, eps)


def log_density_sum(schedule: Schedule, x_t: Tensor, t: Tensor, images: Tensor, block: int = 1024) -> Tensor:
    """log sum_a exp(-||x_t - sqrt(abar_t) a||^2 / (2 (1 - abar_t))) [B] over flat `images` [M, D].

    In float64 on the CPU, `block` images at a time.
    """
    x = x_t.cpu().double().flatten(1)
    signal, sigma = (c.flatten() for c in coefficients(schedule, t.cpu(), x))
    parts = []
    for rows in torch.split(images, block):
        a = rows.double()
        cross, length = x @ a.T, a.square().sum(1)
        distance = x.square().sum(1, keepdim=True) - 2 * signal[:, None] * cross
        distance = distance + signal.square()[:, None] * length
        parts.append(torch.logsumexp(-0.5 * distance / sigma.square()[:, None], dim=1))
    return torch.logsumexp(torch.stack(parts), dim=0)


def ratio_weights(log_ratio: Tensor, inside: Tensor) -> Tensor:
    """Weights [F] proportional to exp(log_ratio), of mean 1 over the entries `inside`, cut at RATIO_BOUND.

    Entries outside get 0. Without the bound one entry would carry a whole step: truncated importance
    sampling (Ionides 2008).
    """
    masked = log_ratio.masked_fill(~inside, -math.inf)
    if not bool(inside.any()):
        return torch.zeros_like(log_ratio)
    mean = torch.logsumexp(masked, dim=0) - math.log(int(inside.sum()))
    return torch.exp(masked - mean).clamp(max=RATIO_BOUND)


class Retrack(Redirecting):
    """The operator: K nearest retain images of every image of the group, found once.

    Where training showed mirrored images, these are retain images too, and a mirrored entry has the mirror
    images of its neighbours: distances are the same.
    """

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        self.schedule, self.spec, self.problem = problem.schedule, problem.spec, problem
        forget, retain = problem.forget.nonzero().flatten(), (~problem.forget).nonzero().flatten()
        group, known = problem.images[forget], problem.images[retain]
        found = nearest(group, known, self.spec.neighbours, flip=problem.flip)
        self.table = torch.zeros(len(problem.images), found.shape[1], dtype=torch.int64)
        self.table[forget] = retain[found % len(retain)]
        self.mirrored = torch.zeros(self.table.shape, dtype=torch.bool)
        self.mirrored[forget] = found >= len(retain)
        self.images = problem.images
        self.group: Tensor | None = None
        if self.spec.density_ratio:
            self.group = (both(to_x0(group)) if problem.flip else to_x0(group)).flatten(1)
        self.retained = len(known) * (1 + problem.flip)

    def redirect(self, batch: ForgetBatch) -> Redirect:
        """eps_bar for each entry; entries outside the window t_min * T .. t_max * T get weight 0."""
        neighbours = self._neighbours(batch)
        target = target_noise(self.schedule, batch.x_t, batch.t, neighbours, batch.noise, self.spec.cap)
        weight = catalog.value(self.spec, "forget_weight") * self.problem.share(batch)
        if self.group is not None:
            weight = weight * self._ratios(batch, neighbours).to(weight)
        return Redirect(target, weight)

    def _neighbours(self, batch: ForgetBatch) -> Tensor:
        """The entries' neighbours [F, K, C, H, W]."""
        found = to_x0(sent(self.images[self.table[batch.indices]], batch.x_t.device))
        if batch.flip is None:
            return found
        turned = oriented(found.flatten(0, 1), self.mirrored[batch.indices].flatten()).view_as(found)
        return batch.turned(turned)

    def _ratios(self, batch: ForgetBatch, neighbours: Tensor) -> Tensor:
        """Weights from p_-k(x_t) / p_k(x_t) [F]: the full ReTrack objective.

        p_k is the mean over all images of the group. The neighbours stand for all retain images in p_-k, as
        they do in eps_bar; with all of them as neighbours both are exact.
        """
        assert self.group is not None
        x_t, t = batch.x_t, batch.t
        near = torch.cat(
            [
                log_density_sum(self.schedule, x_t[i : i + 1], t[i : i + 1], neighbours[i].cpu().flatten(1))
                for i in range(len(t))
            ]
        )
        own = log_density_sum(self.schedule, x_t, t, self.group)
        log_ratio = near - math.log(self.retained) - own + math.log(len(self.group))
        return ratio_weights(log_ratio, self.problem.share(batch).cpu() > 0)


class RetrackZero(Redirecting):
    """Noise 0 is the target of every entry of the group.

    What the public code of Murata et al. 2026 trains towards: it exponentiates the weights' exponents, about
    -dim/2, as they are and divides by their sum + 1e-8, so that at 32x32x3 all weights are 0.
    """

    def __init__(
        self, problem: Problem, *, full: Denoiser | None = None, parameters: Sequence[Tensor] = ()
    ) -> None:
        self.schedule, self.problem = problem.schedule, problem

    def redirect(self, batch: ForgetBatch) -> Redirect:
        """Zeros; entries outside the window t_min * T .. t_max * T get weight 0."""
        weight = catalog.value(self.problem.spec, "forget_weight") * self.problem.share(batch)
        return Redirect(torch.zeros_like(batch.noise), weight)


def both(images: Tensor) -> Tensor:
    """`images` [N, ..., W] and after them their mirror images: [2N, ..., W]."""
    return torch.cat([images, images.flip(-1)])


def nearest(
    forget: Tensor, retain: Tensor, k: int, *, flip: bool = False, block: int | None = None
) -> Tensor:
    """Row numbers in `retain` [R, ...] of the k nearest images to each of `forget` [F, ...]: int64 [F, k].

    Squared Euclidean distance of x0, ties to the lower row; k is cut to R. With `flip` rows R .. 2R - 1 are
    the mirror images. `block` images of each are x0 at once: all of them may be larger than memory.
    """
    block = block or max(1, min(2048, BLOCK // max(1, retain[:1].numel())))
    out = []
    for first in range(0, len(forget), block):
        rows = to_x0(forget[first : first + block]).flatten(1)
        best = torch.empty(len(rows), 0)
        index = torch.empty(len(rows), 0, dtype=torch.int64)
        for start, part in _flat_blocks(retain, flip, block):
            distance = part.square().sum(1) - 2.0 * rows @ part.T
            columns = torch.arange(start, start + len(part)).expand(len(rows), -1)
            best, index = _smallest(torch.cat([best, distance], 1), torch.cat([index, columns], 1), k)
        ranked = best.argsort(dim=1, stable=True)
        out.append(index.gather(1, ranked))
    return torch.cat(out)


def _flat_blocks(images: Tensor, flip: bool, block: int) -> Iterator[tuple[int, Tensor]]:
    """x0 [B, D] of images [N, ...] with the number of the first, and with `flip` of their mirror images."""
    for turned in (False, True) if flip else (False,):
        for start in range(0, len(images), block):
            part = to_x0(images[start : start + block])
            yield start + turned * len(images), (part.flip(-1) if turned else part).flatten(1)


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
