"""`unlearn-query`: forget the query in one step, see which training images are forgotten with it.

Wang et al. 2024, Data Attribution for Text-to-Image Models by Unlearning Synthesized Images
(arXiv 2406.09408).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from guda_cli.attribution.rivals.by_query import ByQuery
from guda_cli.attribution.rivals.cell_losses import (
    QueryScores,
    batches,
    cell_losses,
    cell_weights,
    mean_over_cells,
    row_losses,
)
from guda_cli.attribution.rivals.engine import Advance, Arrays, Prepared
from guda_cli.attribution.rivals.fisher import Fisher, diagonal_fisher
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.functional import FunctionalNetwork, evaluating
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.schedule import Array
from guda_cli.training.loop import Diverged


@dataclass(frozen=True)
class AscentSpec:
    """The step: `rise` of the query's loss that it aims at, and the Fisher's relative `damping`.

    `by_layer`: of each tensor by its own mean. The means of layers differ by orders of magnitude: with one
    damping for all, layers far below it move as if they had no preconditioner, and those far above as if they
    were not damped.
    """

    rise: float = 1.0
    damping: float = 0.01
    by_layer: bool = False
    tolerance: float = 0.1  # share of `rise` by which it may be missed
    evaluations: int = 10  # at most


@dataclass(frozen=True, eq=False)
class Step:
    """Weights after the step, its a / N, the relative rise of the query's loss, evaluations of that loss."""

    weights: dict[str, Tensor]
    scale: float
    rise: float
    evaluations: int


def query_gradient(
    network: FunctionalNetwork, weights: Weights, query: Samples, at: Grid, *, seed: int, batch_size: int
) -> tuple[float, dict[str, Tensor]]:
    """The query's mean loss over the cells of `at` and its gradient by name; `query` holds one image."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    share, loss = cell_weights(at), 0.0
    with evaluating(network), torch.enable_grad():
        for batch in batches(network, query, at, seed=seed, batch_size=batch_size):
            losses = row_losses(network, leaves, batch)
            mean = (losses * share[batch.where].to(losses)).sum()
            parts = torch.autograd.grad(mean, list(leaves.values()), allow_unused=True)
            for name, part in zip(leaves, parts, strict=True):
                if part is not None:
                    total[name].add_(part)
            loss += float(mean.detach())
    return loss, total


def ascend(weights: Weights, direction: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """theta + scale * direction; `direction` is F^-1 grad L(q)."""
    return {name: value + scale * direction[name] for name, value in weights.items()}


def scale_for(rise_at: Callable[[float], float], slope: float, spec: AscentSpec) -> tuple[float, float, int]:
    """The s whose relative rise of the query's loss is `spec.rise`: (s, its rise, evaluations).

    `slope` is the derivative of `rise_at` at 0. Tries follow the parabola through 0 with that slope and the
    last value; once there is a bracket, the power law between its ends and its middle (in the logarithm) in
    turn. The nearest try wins when none is close enough.
    """
    wanted, low, high = spec.rise, (0.0, 0.0), (math.inf, math.inf)
    s, best = wanted / slope, (math.inf, 0.0, 0.0)
    for done in range(1, spec.evaluations + 1):
        rise = rise_at(s)
        if math.isfinite(rise) and rise > 0.0:
            best = min(best, (abs(math.log(rise / wanted)), s, rise))
        if abs(rise - wanted) <= spec.tolerance * wanted:
            break
        if rise < wanted:
            low = s, rise
        else:  # NaN counts as too far
            high = s, rise if math.isfinite(rise) else math.inf
        if low[1] > 0.0 and math.isfinite(high[1]):
            s = _between(low, high, wanted if done % 2 else None)
        else:
            s = _along(s, rise, slope, wanted, low[0], high[0])
    return best[1], best[2], done


def _between(low: tuple[float, float], high: tuple[float, float], wanted: float | None) -> float:
    """Where the power law through both points is `wanted`; their geometric middle without it."""
    share = 0.5 if wanted is None else math.log(wanted / low[1]) / math.log(high[1] / low[1])
    return float(low[0] * (high[0] / low[0]) ** share)


def _along(s: float, rise: float, slope: float, wanted: float, low: float, high: float) -> float:
    """Where the parabola through 0 with `slope` and through (s, rise) is `wanted`, if within the bracket."""
    inside = slope * slope + 4.0 * wanted * (rise - slope * s) / (s * s)
    if math.isfinite(inside) and inside >= 0.0:
        root = 2.0 * wanted / (slope + math.sqrt(inside))
        if low < root < high:
            return root
    if math.isinf(high):
        return 2.0 * low
    return math.sqrt(low * high) if low > 0.0 else high / 4.0


def unlearning_step(
    network: FunctionalNetwork,
    weights: Weights,
    query: Samples,
    fisher: Fisher,
    at: Grid,
    spec: AscentSpec,
    *,
    seed: int,
    batch_size: int,
) -> Step:
    """theta' = theta + (a / N) (F + damping)^-1 grad L(q) (Wang et al. 2024) for one query.

    The size of the step is chosen from the query alone: the a / N at which its own loss on the same cells
    has risen by `spec.rise` (within `spec.tolerance`), found from the gradient and a few more evaluations of
    that loss. No oracle, group or other query is looked at. A query at a stationary point stays put.
    """
    before, gradient = query_gradient(network, weights, query, at, seed=seed, batch_size=batch_size)
    damped = fisher.damped(spec.damping, spec.by_layer)
    direction = {name: value / damped[name] for name, value in gradient.items()}
    slope = sum(float((g * direction[name]).double().sum()) for name, g in gradient.items())
    if not (math.isfinite(before) and math.isfinite(slope)):
        raise Diverged("the loss or gradient of a query is not finite", fix="train the model again")
    if slope <= 0.0 or before <= 0.0:
        return Step(dict(weights), 0.0, 0.0, 0)

    def rise_at(scale: float) -> float:
        moved = ascend(weights, direction, scale)
        losses = cell_losses(network, moved, query, at, seed=seed, batch_size=batch_size)
        return float(mean_over_cells(losses, at)[0]) / before - 1.0

    found = scale_for(rise_at, slope / before, spec)
    return Step(ascend(weights, direction, found[0]), *found)


def score_query(
    network: FunctionalNetwork,
    weights: Weights,
    query: Samples,
    pool: Samples,
    base: Array,
    fisher: Fisher,
    query_at: Grid,
    pool_at: Grid,
    spec: AscentSpec,
    *,
    seed: int,
    batch_size: int,
) -> QueryScores:
    """L(x_i; theta') - L(x_i; theta) of the training images `pool` for the one image of `query`.

    `weights` are the parameters that move (`FunctionalNetwork.weights(keep)`), `fisher` is over the same
    names, and `base` [N, draws, n] are `cell_losses` of `pool` at `pool_at` under `weights` with the
    same seed. Positive: the image is forgotten with the query. Does not depend on other queries. Raises
    Diverged when a loss is not finite.
    """
    step = unlearning_step(network, weights, query, fisher, query_at, spec, seed=seed, batch_size=batch_size)
    after = cell_losses(network, step.weights, pool, pool_at, seed=seed, batch_size=batch_size)
    scores = mean_over_cells(after - base, pool_at)
    if not bool(torch.isfinite(torch.from_numpy(scores)).all()):
        raise Diverged("a loss is not finite after the unlearning step", fix="a smaller rise")
    forwards = (3.0 + step.evaluations) * query_at.rows + len(pool) * pool_at.rows
    return QueryScores(scores, forwards)


class UnlearnQuery(ByQuery):
    """The engine: one Fisher-preconditioned ascent step on the query."""

    def expected_forwards(self) -> int:
        """See `Engine`: the losses before, and the Fisher's gradients."""
        return 4 * len(self.pool) * self.at.rows

    def prepare(self, advance: Advance) -> Prepared:
        """The pool's losses and the Fisher diagonal over the pool."""
        base = self.losses_before()
        advance(len(self.pool) * self.at.rows)
        fisher = diagonal_fisher(self.network, self._weights, self.pool, self.at, seed=self.seed)
        advance(round(fisher.forwards))
        arrays = {f"fisher/{name}": value.cpu().numpy() for name, value in fisher.diagonal.items()}
        return Prepared({"base": base, **arrays}, fisher.forwards + base.size, {})

    def one(self, prepared: Arrays, query: Samples) -> tuple[Array, float]:
        """See `ByQuery`."""
        spec = AscentSpec(
            rise=float(self.values["query_rise"]), damping=float(self.values["damping"]),
            by_layer=bool(self.values.get("damping_by_layer")),
        )  # fmt: skip
        found = score_query(
            self.network, self._weights, query, self.pool, prepared["base"], self._fisher(prepared),
            self.at, self.at, spec, seed=self.seed, batch_size=self.batch_size,
        )  # fmt: skip
        return found.scores, found.forwards

    @cached_property
    def _weights(self) -> Weights:
        """What the step moves: of text-to-image models the keys and values of cross-attention."""
        return self.network.weights(self.model.moves)

    def _fisher(self, prepared: Arrays) -> Fisher:
        diagonal = {
            name.removeprefix("fisher/"): torch.from_numpy(value).to(self.network.device)
            for name, value in prepared.items()
            if name.startswith("fisher/")
        }
        return Fisher(diagonal, 0.0)
