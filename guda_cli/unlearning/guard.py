"""GUARD: forget least what the rest of the data needs most.

Ma et al. 2025 (arXiv 2506.10946): weights of the forget samples fall with the inner product of their gradient
and the mean retain gradient (their proxy attribution score). There the exponent is that product over a
temperature; here it is standardised first, so that one temperature suits models of any size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from guda_cli.diffusion.denoiser import Network, add_noise, to_x0, training_target
from guda_cli.diffusion.noise import generator
from guda_cli.unlearning.catalog import GUARD_DRAWS, GUARD_RETAIN
from guda_cli.unlearning.operators.base import Problem, squared_error

CHUNK = 64  # entries at a time, at most
ELEMENTS = 2**27  # numbers in the per-sample gradients of a chunk: half a gigabyte


class _Losses(torch.nn.Module):
    """The per-sample denoising losses [B] as a function of the network's parameters."""

    def __init__(self, denoiser: Network) -> None:
        super().__init__()
        self.network, self.denoiser = denoiser.network, denoiser

    def forward(self, x_t: Tensor, t: Tensor, target: Tensor, cond: Tensor | None = None) -> Tensor:
        return squared_error(self.denoiser.predict(x_t, t, cond), target)


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


def retain_gradient(denoiser: Network, problem: Problem) -> dict[str, Tensor]:
    """Mean gradient over up to GUARD_RETAIN images that stay, by parameter; one (t, noise) an image."""
    losses = _Losses(denoiser)
    named = {name: p.detach().requires_grad_() for name, p in losses.named_parameters()}
    order = torch.randperm(len(problem.forget), generator=generator("guda.guard/1", problem.spec.seed))
    rows = order[~problem.forget[order]][:GUARD_RETAIN]
    total = {name: torch.zeros_like(p) for name, p in named.items()}
    for draws in _draws(denoiser, problem, rows, 0, CHUNK):
        value = functional_call(losses, named, draws).sum() / len(rows)
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True, materialize_grads=True)
        for name, part in zip(named, found, strict=True):
            total[name] += part
    return total


def alignments(denoiser: Network, problem: Problem, rows: Tensor, retain: dict[str, Tensor]) -> Tensor:
    """<gradient of each image's loss, `retain`> for images `rows` [F], mean over draws: float64 [F].

    Per-sample gradients by vmap, as many at a time as fit into ELEMENTS numbers.
    """
    losses = _Losses(denoiser)
    named = {name: p.detach() for name, p in losses.named_parameters()}
    chunk = max(1, min(CHUNK, ELEMENTS // sum(p.numel() for p in named.values())))

    def aligned(*entry: Tensor) -> Tensor:
        def loss(parameters: dict[str, Tensor]) -> Tensor:
            one = tuple(x.unsqueeze(0) for x in entry)
            value: Tensor = functional_call(losses, parameters, one)[0]
            return value

        own = grad(loss)(named)
        return torch.stack([(own[name] * value).sum() for name, value in retain.items()]).sum()

    out = torch.zeros(len(rows), dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be vectorised
        for draw in range(GUARD_DRAWS):
            found = [vmap(aligned)(*entries) for entries in _draws(denoiser, problem, rows, draw, chunk)]
            out += torch.cat(found).double().cpu() / GUARD_DRAWS
    return out


def _draws(
    denoiser: Network, problem: Problem, rows: Tensor, draw: int, chunk: int
) -> Iterator[tuple[Tensor, ...]]:
    """(x_t, t, target, cond where there is one) of images `rows`, in chunks.

    Draw d lies in the d-th of GUARD_DRAWS strata of the timesteps.
    """
    schedule, device = problem.schedule, denoiser.device
    for part in torch.split(rows, chunk):
        noise, times = [], []
        for index in part.tolist():
            g = generator("guda.guard/1", problem.spec.seed, index, draw)
            place = (draw + float(torch.rand((), generator=g, dtype=torch.float64))) / GUARD_DRAWS
            times.append(1 + int(place * schedule.T))
            noise.append(torch.randn(problem.images.shape[1:], generator=g))
        eps, t = torch.stack(noise).to(device), torch.tensor(times).to(device)
        x0 = to_x0(problem.images[part]).to(device)
        cond = () if problem.cond is None else (problem.cond[part].to(device),)
        yield add_noise(schedule, x0, eps, t), t, training_target(schedule, x0, eps, t), *cond
