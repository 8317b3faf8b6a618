"""The part of scoring that runs networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from guda_cli.data.queries import Query
from guda_cli.diffusion import elbo, features
from guda_cli.diffusion.cells import Kept
from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError
from guda_cli.store import ActionRecord
from guda_cli.workflow.models.loaded import Models
from guda_cli.workflow.models.recast import PLAIN, arithmetic
from guda_cli.workflow.project.compute import Compute, Form, looked_at_in

KEPT = {"cpu": 128 << 20, "cuda": 1 << 30}
"""Bytes of noise that one model leaves for the next, by the kind of device."""


class Engine:
    """Computes ELBO terms and maps of queries under any model, one model at a time.

    Batches that do not fit in memory are halved (`Models.rows`).
    """

    def __init__(self, models: Models, seed: int, compute: Compute) -> None:
        self.models, self.seed, self.compute = models, seed, compute
        self._kept = Kept(KEPT.get(compute.device.type, KEPT["cpu"]))

    def terms(self, record: ActionRecord, queries: Sequence[Query], grid: Grid) -> Array:
        """-ELBO terms in nats [queries, draws, n] of `grid`, a layer of the whole, under a record's model."""
        denoiser = self._use(record)
        x0 = self._x0(queries)
        rows = _rows(queries)
        told = [condition for query in queries for condition in query.conditions]
        with arithmetic(self.compute.form.dtype, self.compute.device):
            found = self.models.rows.fit(
                lambda batch_size: elbo.image_terms(
                    denoiser,
                    x0 if len(rows) == len(queries) else x0[rows],
                    [queries[i].pixels_digest for i in rows],
                    grid,
                    seed=self.seed,
                    batch_size=batch_size,
                    cond=self.models.conditions(told),
                    kept=self._kept,
                )
            )
        _check_finite(found, self.compute.form.dtype)
        return found if len(rows) == len(queries) else _means(found, rows)

    def features(self, record: ActionRecord, queries: Sequence[Query], draws: int) -> Array:
        """What a record's model makes of queries [queries, F], mean over `draws` and their conditions."""
        dtype = looked_at_in(self.models.project.recipe)
        denoiser, x0, rows = self.models.recast(record, Form(dtype)), self._x0(queries), _rows(queries)
        found = self.models.rows.fit(
            lambda batch_size: features.features(
                denoiser,
                x0 if len(rows) == len(queries) else x0[rows],
                [queries[i].pixels_digest for i in rows],
                draws=draws,
                seed=self.seed,
                batch_size=batch_size,
                cond=self.models.conditions([told for query in queries for told in query.conditions]),
            )
        )
        _check_finite(found, dtype)
        return found if len(rows) == len(queries) else _means(found, rows)

    def _use(self, record: ActionRecord) -> Network:
        return self.models.recast(record, self.compute.form)

    def _x0(self, queries: Sequence[Query]) -> Tensor:
        digests = [query.pixels_digest for query in queries]
        return self.models.space.x0(np.stack([query.pixels for query in queries]), digests)

    def maps(
        self, query: Query, models: dict[str, tuple[ActionRecord, ...]], grid: Grid, multiplier: Array
    ) -> dict[str, Array]:
        """Per-pixel delta-ELBO [H, W] of one query for each name, mean over its models; "" is the full."""
        found = {
            name: np.mean([self._map(query, record, grid, multiplier) for record in records], axis=0)
            for name, records in models.items()
        }
        full = found.pop("")
        return {name: self.models.space.spread(value - full) for name, value in found.items()}

    def _map(self, query: Query, record: ActionRecord, grid: Grid, multiplier: Array) -> Array:
        maps = [self._map_under(query, told, record, grid, multiplier) for told in query.conditions]
        return np.asarray(np.mean(maps, axis=0))

    def _map_under(
        self, query: Query, told: str | None, record: ActionRecord, grid: Grid, multiplier: Array
    ) -> Array:
        denoiser = self._use(record)
        with arithmetic(self.compute.form.dtype, self.compute.device):
            return self.models.rows.fit(
                lambda batch_size: elbo.weighted_map(
                    denoiser,
                    self._x0([query])[0],
                    query.pixels_digest,
                    grid,
                    multiplier,
                    seed=self.seed,
                    batch_size=batch_size,
                    cond=self.models.conditions([told]),
                    kept=self._kept,
                )
            )


def _check_finite(terms: Array, dtype: str) -> None:
    if not np.isfinite(terms).all():
        raise DataError(
            "what the network makes of an image is NaN or infinite",
            why=f"the network's forwards in {dtype} overflow"
            if dtype not in PLAIN
            else "the weights are damaged",
            fix="--set score.dtype=bfloat16" if dtype == "float16" else "",
        )


def _rows(queries: Sequence[Query]) -> list[int]:
    """Whose each forward is: one for every condition of a query."""
    return [i for i, query in enumerate(queries) for _ in query.conditions]


def _means(terms: Array, rows: Sequence[int]) -> Array:
    """Values [M, ...] averaged over the forwards of each query; `rows` [M] says whose each is."""
    owner = np.asarray(rows)
    out = np.zeros((int(owner.max()) + 1, *terms.shape[1:]))
    np.add.at(out, owner, terms)
    return np.asarray(out / np.bincount(owner).reshape(-1, *[1] * (terms.ndim - 1)))
