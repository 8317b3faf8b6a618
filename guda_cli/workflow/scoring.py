"""The part of scoring that runs networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from guda_cli.data.images import to_float
from guda_cli.data.queries import Query
from guda_cli.diffusion import elbo
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array
from guda_cli.workflow.compute import Compute
from guda_cli.workflow.models import Models
from store import ActionRecord


class Engine:
    """Computes ELBO terms and maps of queries under any model, one model at a time."""

    def __init__(self, models: Models, grid: Grid, seed: int, compute: Compute) -> None:
        self.models, self.grid, self.seed, self.compute = models, grid, seed, compute

    def terms(self, record: ActionRecord, queries: Sequence[Query]) -> Array:
        """-ELBO terms in nats [queries, draws, n] under the model of `record`."""
        denoiser = self.models.use(record)
        x0 = torch.from_numpy(to_float(np.stack([query.pixels for query in queries])))
        return elbo.image_terms(
            denoiser,
            x0,
            [query.pixels_digest for query in queries],
            self.grid,
            seed=self.seed,
            batch_size=self.compute.batch_size,
            cond=self.models.conditions([query.condition for query in queries]),
        )

    def maps(
        self, query: Query, models: dict[str, tuple[ActionRecord, ...]], multiplier: Array
    ) -> dict[str, Array]:
        """Per-pixel delta-ELBO [H, W] of one query for each name, mean over its models; "" is the full."""
        found = {
            name: np.mean([self._map(query, record, multiplier) for record in records], axis=0)
            for name, records in models.items()
        }
        full = found.pop("")
        return {name: value - full for name, value in found.items()}

    def _map(self, query: Query, record: ActionRecord, multiplier: Array) -> Array:
        return elbo.weighted_map(
            self.models.use(record),
            torch.from_numpy(to_float(query.pixels)),
            query.pixels_digest,
            self.grid,
            multiplier,
            seed=self.seed,
            batch_size=self.compute.batch_size,
            cond=self.models.conditions([query.condition]),
        )
