"""`mucs`: unlearn the query by bounded ascent with a retain term, compare training losses before and after.

Serra et al. 2026 (arXiv 2605.17938).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from guda_cli.attribution.rivals.by_query import ByQuery
from guda_cli.attribution.rivals.cell_losses import (
    QueryScores,
    cell_losses,
    levels,
    mean_over_cells,
    row_losses,
)
from guda_cli.attribution.rivals.engine import Advance, Arrays, Context, Prepared
from guda_cli.diffusion.cells import Noised, Samples, noised
from guda_cli.diffusion.functional import FunctionalNetwork, evaluating
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.noise import generator
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError
from guda_cli.training.loop import Diverged
from guda_cli.training.stream import Stream

FLOOR = 1e-3
"""Added to the denominator of the score, in mean squared error per pixel."""
NULL_LEVELS = 16
"""Forwards of a query's null loss."""
_ATTENTION = re.compile(r"(^|[._])(attn\d*|attentions?)([._]|$)|(^|[._])(to_[qkv]|to_out)([._]|$)")


@dataclass(frozen=True)
class MucsSpec:
    """How a query is unlearned; Adam without weight decay, gradients clipped to norm 1.

    `lowest`: levels below this share of T take no part (the noisiest 70 % are left).
    """

    max_steps: int = 50
    lr: float = 1e-3
    retain_batch: int = 32
    forget_batch: int = 32
    forget_weight: float = 0.2
    bound: float = 0.95  # of the null loss: where ascent stops
    lowest: float = 0.3
    grad_clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Unlearned:
    """Weights after `steps` optimiser steps, the losses of the last batch seen, forward-equivalents.

    `forget` is bounded as in the loss.
    """

    weights: dict[str, Tensor]
    steps: int
    forget: float
    retain: float
    reached: bool
    forwards: float


def movable(name: str) -> bool:
    """Whether MUCS moves the parameter of that name: no biases, nothing of attention layers."""
    return not name.endswith("bias") and not _ATTENTION.search(name)


def null_losses(
    untrained: FunctionalNetwork,
    queries: Samples,
    spec: MucsSpec,
    *,
    n: int = NULL_LEVELS,
    batch_size: int = 64,
) -> Array:
    """The null of each query, float64 [Q]: its mean loss under the untrained network.

    `untrained` is the recipe's network with freshly drawn weights (`Family.build`): what
    a model that knows nothing pays, close to the loss of predicting zero. The levels are those that MUCS
    uses, n strata and one draw; costs n forwards a query.
    """
    at = levels(untrained.schedule.T, n, 1, spec.seed, spec.lowest)
    losses = cell_losses(untrained, {}, queries, at, seed=spec.seed, batch_size=batch_size)
    return mean_over_cells(losses, at)


def forget_rows(network: FunctionalNetwork, query: Samples, spec: MucsSpec, step: int) -> Noised:
    """The query at `forget_batch` levels, one drawn in each stratum; a function of (query, seed, step)."""
    T, size = network.schedule.T, spec.forget_batch
    offset = round(spec.lowest * T)
    g = generator("guda.mucs/1", query.digests[0], spec.seed, step)
    places = (torch.arange(size) + torch.rand(size, generator=g, dtype=torch.float64)) / size
    t = offset + 1 + (places * (T - offset)).long().clamp(max=T - offset - 1)
    noise = torch.randn(size, *query.images.shape[1:], generator=g)
    return noised(network, query.images, query.labels, [0] * size, t, noise)


def retain_rows(network: FunctionalNetwork, retain: Samples, stream: Stream, step: int) -> Noised:
    """Training images at levels above `lowest`; every query sees the same batches."""
    batch = stream.at(step)
    offset = network.schedule.T - stream.T
    return noised(network, retain.images, retain.labels, batch.indices, batch.t + offset, batch.noise)


def unlearn(
    network: FunctionalNetwork, weights: Weights, query: Samples, retain: Samples, null: float, spec: MucsSpec
) -> Unlearned:
    """Weights after bounded ascent on the query: loss = mean(retain) - 0.2 mean(min(forget, null)).

    Both terms are mean squared errors per pixel, a row a noised image. The bound is each row's: one above
    `null` has no gradient, as in the authors' code. Steps until the bounded forget loss of a fresh batch is
    at 95 % of `null`, or `max_steps`; a step draws new noise, so the stop is judged on noise that was not
    trained on.
    `network` itself is not changed. Raises Diverged when a loss is not finite.
    """
    leaves = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=spec.lr)
    T = network.schedule.T - round(spec.lowest * network.schedule.T)
    stream = Stream(len(retain), spec.retain_batch, T, tuple(retain.images.shape[1:]), spec.seed)
    step, spent = 0, 0.0
    with evaluating(network):
        while True:
            rows = forget_rows(network, query, spec, step)
            others = retain_rows(network, retain, stream, step)
            with torch.set_grad_enabled(step < spec.max_steps):
                forget = row_losses(network, leaves, rows)
                bounded = forget.clamp(max=null).mean()
                kept = row_losses(network, leaves, others).mean()
            _check_finite(forget.mean() + kept, step)
            spent += spec.forget_batch + spec.retain_batch
            reached = float(bounded.detach()) >= spec.bound * null
            if reached or step == spec.max_steps:
                break
            _descend(optimizer, leaves, kept - spec.forget_weight * bounded, spec)
            step, spent = step + 1, spent + 2.0 * (spec.forget_batch + spec.retain_batch)
    final = {name: value.detach() for name, value in leaves.items()}
    return Unlearned(final, step, float(bounded.detach()), float(kept.detach()), reached, spent)


def _check_finite(loss: Tensor, step: int) -> None:
    """Diverged unless `loss` is; the unbounded one, as the bound would hide an infinite row."""
    if not math.isfinite(float(loss.detach())):
        raise Diverged(
            f"the loss became {float(loss.detach())} at step {step} of unlearning a query",
            why="the learning rate is too high for this model",
            fix="a smaller learning rate for mucs; nothing was stored",
        )


def _descend(
    optimizer: torch.optim.Optimizer, leaves: dict[str, Tensor], loss: Tensor, spec: MucsSpec
) -> None:
    parts = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    for value, part in zip(leaves.values(), parts, strict=True):
        value.grad = part
    torch.nn.utils.clip_grad_norm_(leaves.values(), spec.grad_clip)
    optimizer.step()


def relative_rise(after: Array, before: Array, at: Grid) -> Array:
    """Mean over cells of (L_u - L_t) / (L_u + L_t + 1e-3): [N], between -1 and 1, odd in its arguments."""
    return mean_over_cells((after - before) / (after + before + FLOOR), at)


def score_query(
    network: FunctionalNetwork,
    weights: Weights,
    query: Samples,
    pool: Samples,
    base: Array,
    retain: Samples,
    null: float,
    at: Grid,
    spec: MucsSpec,
    *,
    seed: int,
    batch_size: int,
) -> QueryScores:
    """Scores of the training images `pool` for the one image of `query`; positive: forgotten with it.

    `weights` are what may move (`network.weights(movable)`), `base` [N, draws, n] are `cell_losses` of `pool`
    at `at` (`levels(..., lowest=spec.lowest)`) with the same `seed`, `retain` the images that retain batches
    are drawn from, `null` as from `null_losses`. Does not depend on other queries. DataError when the null
    does not bound anything, Diverged when a loss is not finite.
    """
    if not (math.isfinite(null) and null > 0.0):
        raise DataError(f"the null loss is {null}", why="mucs needs a positive bound for its ascent")
    done = unlearn(network, weights, query, retain, null, spec)
    after = cell_losses(network, done.weights, pool, at, seed=seed, batch_size=batch_size)
    scores = relative_rise(after, base, at)
    if not bool(np.isfinite(scores).all()):
        raise Diverged("a loss is not finite after unlearning a query", fix="a smaller learning rate")
    return QueryScores(scores, done.forwards + len(pool) * at.rows)


class Mucs(ByQuery):
    """The engine: bounded ascent on the query with a retain term; the pool's own images are retained."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.spec = MucsSpec(
            max_steps=int(self.values["mucs_steps"]), lr=float(self.values["mucs_lr"]), seed=self.seed
        )
        self.lowest = self.spec.lowest

    def expected_forwards(self) -> int:
        """See `Engine`: the losses before."""
        return len(self.pool) * self.at.rows

    def prepare(self, advance: Advance) -> Prepared:
        """The pool's losses under the full model."""
        base = self.losses_before()
        advance(self.expected_forwards())
        return Prepared({"base": base}, float(base.size), {})

    def one(self, prepared: Arrays, query: Samples) -> tuple[Array, float]:
        """See `ByQuery`."""
        null = float(null_losses(self._untrained, query, self.spec, n=NULL_LEVELS)[0])
        found = score_query(
            self.network, self._weights, query, self.pool, prepared["base"], self.pool, null,
            self.at, self.spec, seed=self.seed, batch_size=self.batch_size,
        )  # fmt: skip
        return found.scores, found.forwards + NULL_LEVELS

    @cached_property
    def _weights(self) -> Weights:
        return self.network.weights(movable)

    @cached_property
    def _untrained(self) -> FunctionalNetwork:
        return FunctionalNetwork(self.model.untrained())
