"""GUARD: forget least what the rest of the data needs most.

Ma et al. 2025 (arXiv 2506.10946): weights of the forget samples fall with the inner product of their gradient
and the mean retain gradient (their proxy attribution score). There the exponent is that product over a
temperature; here it is standardised first, so that one temperature suits models of any size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from guda_cli.diffusion.cells import Noised, noised
from guda_cli.diffusion.denoiser import Network, squared_error
from guda_cli.diffusion.functional import LARGEST, FunctionalNetwork, how_many, sample_gradients
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.noise import generator
from guda_cli.training.stream import oriented
from guda_cli.unlearning.catalog import GUARD_DRAWS, GUARD_RETAIN
from guda_cli.unlearning.operators.base import Problem

MEMORY = 512 << 20
"""Bytes of the per-sample gradients of a chunk."""


def weights_from(alignment: Tensor, temperature: float) -> Tensor:
    """Weights [F] of mean 1, proportional to exp(-z / temperature), z the standardised `alignment` [F]."""
    centred = alignment.double() - alignment.double().mean()
    spread = centred.square().mean().sqrt()
    z = centred / spread if float(spread) > 0.0 else torch.zeros_like(centred)
    return torch.softmax(-z / temperature, dim=0) * len(z)


def guard_weights(denoiser: Network, problem: Problem) -> Tensor:
    """Weights [N] float32 of every image's forget term; 1 outside the group.

    `denoiser` holds the full model and is put in evaluation mode. The (t, noise) of an image depend on its
    index and the seed alone.
    """
    denoiser.network.eval()
    retain = retain_gradient(denoiser, problem)
    rows = problem.forget.nonzero().flatten()
    aligned = alignments(denoiser, problem, rows, retain)
    out = torch.ones(len(problem.forget))
    out[rows] = weights_from(aligned, problem.spec.guard_temperature).float()
    return out


def retain_gradient(denoiser: Network, problem: Problem) -> Weights:
    """Mean gradient over up to GUARD_RETAIN images that stay, by parameter; one (t, noise) an image."""
    network = FunctionalNetwork(denoiser)
    weights = {name: p.requires_grad_() for name, p in network.weights().items()}
    order = torch.randperm(len(problem.forget), generator=generator("guda.guard/1", problem.spec.seed))
    rows = order[~problem.forget[order]][:GUARD_RETAIN]
    total = {name: torch.zeros_like(p) for name, p in weights.items()}
    for batch in noised_draws(denoiser, problem, rows, 0, LARGEST):
        raw = network.predict(weights, batch.x_t, batch.t, batch.cond)
        value = squared_error(raw, batch.target).sum() / len(rows)
        found = torch.autograd.grad(value, list(weights.values()), allow_unused=True, materialize_grads=True)
        for name, part in zip(weights, found, strict=True):
            total[name] += part
    return total


def alignments(denoiser: Network, problem: Problem, rows: Tensor, retain: Weights) -> Tensor:
    """<gradient of each image's loss, `retain`> for images `rows` [F], mean over draws: float64 [F].

    Per-sample gradients, as many at a time as fit into MEMORY.
    """
    network = FunctionalNetwork(denoiser)
    weights = network.weights()
    chunk = how_many(4 * sum(p.numel() for p in weights.values()), MEMORY)

    def loss(own: Weights, x_t: Tensor, t: Tensor, target: Tensor, cond: Tensor | None) -> Tensor:
        return squared_error(network.predict(own, x_t, t, cond), target)[0]

    def aligned(own: Weights) -> Tensor:
        return torch.stack([(own[name] * value).sum() for name, value in retain.items()]).sum()

    out = torch.zeros(len(rows), dtype=torch.float64)
    for draw in range(GUARD_DRAWS):
        found = [
            sample_gradients(loss, weights, batch.x_t, batch.t, batch.target, batch.cond, then=aligned)
            for batch in noised_draws(denoiser, problem, rows, draw, chunk)
        ]
        out += torch.cat(found).double().cpu() / GUARD_DRAWS
    return out


def noised_draws(
    denoiser: Network, problem: Problem, rows: Tensor, draw: int, chunk: int
) -> Iterator[Noised]:
    """Images `rows` [F] with noise of their own, in chunks.

    Draw d lies in the d-th of GUARD_DRAWS strata of the timesteps. Where training mirrored images, a draw
    does so half of the time.
    """
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        noise, times, flips = [], [], []
        for index in part.tolist():
            g = generator("guda.guard/1", problem.spec.seed, index, draw)
            place = (draw + float(torch.rand((), generator=g, dtype=torch.float64))) / GUARD_DRAWS
            times.append(1 + int(place * problem.schedule.T))
            noise.append(torch.randn(problem.images.shape[1:], generator=g))
            flips.append(problem.flip and bool(torch.rand((), generator=g) < 0.5))
        images, at = oriented(problem.images[part], torch.tensor(flips)), torch.arange(len(part))
        cond = None if problem.cond is None else problem.cond[part]
        yield noised(denoiser, images, cond, at, torch.tensor(times), torch.stack(noise))
