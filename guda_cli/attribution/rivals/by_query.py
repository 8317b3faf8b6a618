"""What methods share that unlearn each query and look at the training images' losses before and after."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from guda_cli.attribution.rivals.cell_losses import cell_losses, levels
from guda_cli.attribution.rivals.engine import Arrays, Context, Engine
from guda_cli.data.queries import Query
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.functional import FunctionalNetwork
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array


class ByQuery(Engine):
    """One query at a time; the pool's losses under the full model are prepared.

    Where training mirrored images, an image counts by the higher of the scores of its two orientations (as
    Wang et al. 2024 do).
    """

    lowest = 0.0
    """Levels below this share of T take no part."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.model = context.model
        self.network = FunctionalNetwork(self.model.denoiser)
        self.seed, self.batch_size = int(self.values["seed"]), self.model.batch_size
        self.pool = self.model.seen

    @cached_property
    def at(self) -> Grid:
        """The (t, draw) cells at which losses are compared."""
        T, n, draws = self.network.schedule.T, int(self.values["timesteps"]), int(self.values["draws"])
        return levels(T, n, draws, self.seed, self.lowest)

    def losses_before(self) -> Array:
        """The losses [M, draws, n] of all M images of `FullModel.seen` under the full model."""
        return cell_losses(self.network, {}, self.pool, self.at, seed=self.seed, batch_size=self.batch_size)

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """See `Engine`."""
        found = [self.one(prepared, self.model.of_queries([query])) for query in queries]
        best = [self.model.orientations(scores).max(axis=0) for scores, _ in found]
        return np.stack(best), float(sum(cost for _, cost in found))

    @abstractmethod
    def one(self, prepared: Arrays, query: Samples) -> tuple[Array, float]:
        """Scores [M] of `self.pool` for one query and their cost in forward-equivalents."""
