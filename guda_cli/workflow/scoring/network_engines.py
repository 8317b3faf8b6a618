"""The part of the rival methods that runs networks: what is prepared once, and a query's scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from guda_cli.attribution.rivals import cell_losses, gradients, influence, mucs, unlearn_query
from guda_cli.attribution.rivals.cell_losses import levels
from guda_cli.attribution.rivals.engine import Advance, Arrays, Engine, Prepared
from guda_cli.attribution.rivals.fisher import Fisher, diagonal_fisher
from guda_cli.attribution.rivals.projection import CountSketch
from guda_cli.data.queries import Query
from guda_cli.diffusion import networks
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.denoiser import Network, to_x0
from guda_cli.diffusion.functional import FunctionalNetwork
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array
from guda_cli.unlearning import subsets
from guda_cli.workflow.models.loaded import Models
from guda_cli.workflow.project.compute import Compute
from guda_cli.workflow.scoring.instance_settings import INFLUENCE
from guda_cli.workflow.scoring.pool import Pool


@dataclass(frozen=True, eq=False)
class Context:
    """The full model, the training images that are scored, the method's settings."""

    models: Models
    pool: Pool
    values: Mapping[str, Any]
    compute: Compute

    @property
    def denoiser(self) -> Network:
        """The full model in evaluation mode."""
        return self.models.use(self.models.full)

    def of_pool(self) -> Samples:
        """The scored training images, each under its own class or prompt."""
        data, indices, parts = self.pool.data, self.pool.indices, self.models.parts
        images = parts.latents[indices] if parts else torch.from_numpy(self.pool.pixels)
        names: list[str | None] | None = None
        if parts:
            names = [data.prompts[i] for i in indices]
        elif self.models.classes is not None:
            names = [data.groups[i] for i in data.membership[indices].argmax(axis=1)]
        labels = self.models.conditions(names) if names is not None else None
        return Samples(images, self.pool.digests, labels)

    def of_queries(self, queries: Sequence[Query]) -> Samples:
        """Query images."""
        pixels = np.stack([query.pixels for query in queries])
        digests = tuple(query.pixels_digest for query in queries)
        images = self.models.space.x0(pixels, digests) if self.models.parts else torch.from_numpy(pixels)
        return Samples(images, digests, self.models.conditions([query.conditions[0] for query in queries]))


class Influence(Engine):
    """trak, d-trak and das: gradient features and a ridge regression."""

    def __init__(self, context: Context, method: str) -> None:
        self.context, self.values = context, context.values
        self.method, self.objective = method, INFLUENCE[method]
        self.denoiser = context.denoiser
        self.timesteps = gradients.evenly_spaced(self.denoiser.schedule.T, int(self.values["timesteps"]))
        self.cells = len(self.timesteps) * int(self.values["draws"])
        parameters = gradients.parameter_count(self.denoiser)
        self.projection = CountSketch(parameters, int(self.values["projection"]), int(self.values["seed"]))

    def expected_forwards(self) -> int:
        """See `Engine`: a gradient is a forward and a backward; das adds a forward."""
        return len(self.context.pool.digests) * self.cells * (4 if self.method == "das" else 3)

    def prepare(self, advance: Advance) -> Prepared:
        """Features [N, d] of the pool, das's residual norms [N], and the ridge."""
        pool = self.context.of_pool()
        arrays: Arrays = {"features": self._features(pool, lambda n: advance(3 * n)).astype(np.float64)}
        if self.method == "das":
            arrays["residuals"] = gradients.residuals(
                self.denoiser, self._x0(pool), pool.digests, timesteps=self.timesteps,
                draws=int(self.values["draws"]), seed=int(self.values["seed"]), cond=pool.labels,
                progress=advance,
            )  # fmt: skip
        ridge = self._ridge(arrays["features"])
        arrays["ridge"] = np.array([ridge.value])
        arrays["features"] = arrays["features"].astype(np.float32)
        facts = {"ridge": {"multiple": ridge.multiple, "rule": ridge.rule}}
        return Prepared(arrays, float(self.expected_forwards()), facts)

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """See `Engine`."""
        features = self._features(self.context.of_queries(queries))
        found = influence.scores(
            features, prepared["features"], float(prepared["ridge"][0]), weights=prepared.get("residuals")
        )
        return found, 3.0 * len(queries) * self.cells

    def _ridge(self, features: Array) -> influence.Ridge:
        multiple = self.values["ridge"]
        if multiple is not None:
            return influence.Ridge(multiple * influence.mean_eigenvalue(features), multiple, "given")
        return influence.choose_ridge(features, self.context.pool.data.membership[self.context.pool.indices])

    def _features(self, samples: Samples, advance: Advance | None = None) -> gradients.Features:
        return gradients.gradient_features(
            self.denoiser, self._x0(samples), samples.digests, objective=self.objective,
            timesteps=self.timesteps, draws=int(self.values["draws"]), projection=self.projection,
            seed=int(self.values["seed"]), unit_norm=self.method == "das", cond=samples.labels,
            progress=advance,
        )  # fmt: skip

    @staticmethod
    def _x0(samples: Samples) -> torch.Tensor:
        return to_x0(samples.images)


class _ByQuery(Engine):
    """Methods that unlearn each query and look at the pool's losses before and after."""

    lowest = 0.0

    def __init__(self, context: Context) -> None:
        self.context, self.values = context, context.values
        self.network = FunctionalNetwork(context.denoiser)
        self.seed, self.batch_size = int(self.values["seed"]), context.models.batch_size
        self.pool = context.of_pool()

    @cached_property
    def at(self) -> Grid:
        """The (t, draw) cells at which losses are compared."""
        T, n, draws = self.network.schedule.T, int(self.values["timesteps"]), int(self.values["draws"])
        return levels(T, n, draws, self.seed, self.lowest)

    def losses_before(self) -> Array:
        """The pool's losses [N, draws, n] under the full model."""
        return cell_losses.cell_losses(
            self.network, {}, self.pool, self.at, seed=self.seed, batch_size=self.batch_size
        )

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """See `Engine`."""
        found = [self.one(prepared, self.context.of_queries([query])) for query in queries]
        return np.stack([scores for scores, _ in found]), float(sum(cost for _, cost in found))

    @abstractmethod
    def one(self, prepared: Arrays, query: Samples) -> tuple[Array, float]:
        """Scores [N] for one query and their cost."""


class UnlearnQuery(_ByQuery):
    """One Fisher-preconditioned ascent step on the query."""

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
        """See `_ByQuery`."""
        spec = unlearn_query.AscentSpec(
            rise=float(self.values["query_rise"]), damping=float(self.values["damping"])
        )
        found = unlearn_query.score_query(
            self.network, self._weights, query, self.pool, prepared["base"], self._fisher(prepared),
            self.at, self.at, spec, seed=self.seed, batch_size=self.batch_size,
        )  # fmt: skip
        return found.scores, found.forwards

    @cached_property
    def _weights(self) -> dict[str, torch.Tensor]:
        """What the step moves: of text-to-image models the keys and values of cross-attention."""
        return (
            self.network.weights(subsets.reads_text) if self.context.models.parts else self.network.weights()
        )

    def _fisher(self, prepared: Arrays) -> Fisher:
        diagonal = {
            name.removeprefix("fisher/"): torch.from_numpy(value).to(self.network.denoiser.device)
            for name, value in prepared.items()
            if name.startswith("fisher/")
        }
        return Fisher(diagonal, 0.0)


class Mucs(_ByQuery):
    """Bounded ascent on the query with a retain term."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.spec = mucs.MucsSpec(
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
        """See `_ByQuery`."""
        null = float(mucs.null_losses(self._untrained, query, self.spec)[0])
        found = mucs.score_query(
            self.network, self._weights, query, self.pool, prepared["base"], self.pool, null,
            self.at, self.spec, seed=self.seed, batch_size=self.batch_size,
        )  # fmt: skip
        return found.scores, found.forwards + 16.0

    @cached_property
    def _weights(self) -> dict[str, torch.Tensor]:
        return self.network.weights(mucs.movable)

    @cached_property
    def _untrained(self) -> FunctionalNetwork:
        models = self.context.models
        network = networks.build_unet(models.config["unet"], models.project.recipe.train.seed)
        return FunctionalNetwork(models.denoiser(network.to(self.context.compute.device).eval()))


def make(method: str, context: Context) -> Engine:
    """The engine of a method that runs the model."""
    if method in INFLUENCE:
        return Influence(context, method)
    return UnlearnQuery(context) if method == "unlearn-query" else Mucs(context)
