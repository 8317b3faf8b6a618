"""The ELBO tables of a set of models: read what is there, fill what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array
from guda_cli.store import ActionRecord, action_key
from guda_cli.workflow.keys import steps
from guda_cli.workflow.project.project import Project

Compute = Callable[[list[Query], Grid], Array]
"""Terms [queries, draws, n] of images on a layer of the grid, by the network."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Some draws of the grid (`grids.layers`), which every model has a table of: its key and spec by name."""

    grid: Grid
    tables: Mapping[str, tuple[str, dict[str, Any]]]


class Tables:
    """The terms of images under models, on one grid and computed alike; rows are query digests."""

    def __init__(
        self,
        project: Project,
        records: Mapping[str, ActionRecord],
        grid_spec: Mapping[str, Any],
        compute: Mapping[str, Any],
        T: int,
    ) -> None:
        self.project, self.records, self.compute = project, records, compute
        self.grid = grids.build(grid_spec, T)
        seed = int(grid_spec["seed"])
        self.layers = [
            Layer(
                grids.build(part, T),
                {name: steps.elbo_table(record, part, seed, compute) for name, record in records.items()},
            )
            for part in grids.layers(grid_spec)
        ]

    @property
    def keys(self) -> dict[str, str]:
        """Key of each model's first table."""
        return {name: key for name, (key, _) in self.layers[0].tables.items()}

    def missing(self, digests: Sequence[str]) -> dict[str, int]:
        """How many forwards each model lacks for `digests`."""
        out = dict.fromkeys(self.layers[0].tables, 0)
        wanted = set(digests)
        for layer in self.layers:
            for name, (key, _) in layer.tables.items():
                out[name] += len(wanted - self.project.store.table_rows(key)) * layer.grid.rows
        return out

    def complete(self, digests: Sequence[str]) -> set[str]:
        """Those that have all their terms under every model."""
        found = set(digests)
        for layer in self.layers:
            for key, _ in layer.tables.values():
                found &= self.project.store.table_rows(key)
        return found

    def block_key(self, digests: Sequence[str]) -> str:
        """A key for the work of filling these rows of all tables: who holds its lease does it."""
        return action_key("elbo-block", 1, {"rows": sorted(set(digests))}, self.keys)

    def read(self, name: str, digests: Sequence[str]) -> tuple[Array, list[str]]:
        """Terms [found, draws, n] of the digests that have all, in order, and those that have not."""
        parts, lacking = [], set()
        for layer in self.layers:
            rows, missing = self._read(layer, name, digests)
            lacking |= set(missing)
            parts.append(dict(zip([d for d in digests if d not in set(missing)], rows, strict=True)))
        found = [digest for digest in digests if digest not in lacking]
        if not found:
            return np.empty((0, *self.grid.timesteps.shape)), sorted(lacking)
        terms = [np.concatenate([part[digest] for part in parts]) for digest in found]
        return np.stack(terms), [digest for digest in dict.fromkeys(digests) if digest in lacking]

    def _read(self, layer: Layer, name: str, digests: Sequence[str]) -> tuple[Array, list[str]]:
        found, missing = self.project.store.table_read(layer.tables[name][0], digests)
        self.project.tell_notices()
        empty = np.empty((0, *layer.grid.timesteps.shape))
        return np.asarray(found.get("terms", empty)), [str(row) for row in missing]

    def stored(self, queries: Sequence[Query]) -> dict[str, Array] | None:
        """Terms [queries, draws, n] under every model, by name; None if any is missing."""
        digests = list(dict.fromkeys(query.digest for query in queries))
        if any(self.missing(digests).values()):  # going by names, so that nothing is read in vain
            return None
        found = {}
        for name in self.layers[0].tables:
            terms, missing = self.read(name, digests)
            if missing:  # its segment turned out to be damaged
                return None
            found[name] = _of(queries, digests, terms)
        return found

    def terms(self, name: str, queries: Sequence[Query], compute: Compute) -> tuple[Array, int]:
        """Terms [queries, draws, n] under one model, and how many forwards had to be computed.

        What `compute` gives for missing images is published as one segment a layer.
        """
        unique = {query.digest: query for query in queries}
        parts, forwards = [], 0
        for layer in self.layers:
            known, missing = self._read(layer, name, list(unique))
            lacking = set(missing)
            order = [digest for digest in unique if digest not in lacking]
            if missing:
                fresh = compute([unique[digest] for digest in missing], layer.grid)
                self._publish(layer, name, missing, fresh)
                known, order = np.concatenate([known, fresh]), order + missing
                forwards += len(missing) * layer.grid.rows
            parts.append(_of(queries, order, known))
        return np.concatenate(parts, axis=1), forwards

    def _publish(self, layer: Layer, name: str, rows: Sequence[str], terms: Array) -> None:
        store, (key, spec) = self.project.store, layer.tables[name]
        if not store.read_only:
            store.table_publish(key, spec, rows, {"terms": terms}, {"unit": "nats"})
            store.table_compact(key)


def _of(queries: Sequence[Query], digests: Sequence[str], terms: Array) -> Array:
    """The terms of each query; `terms` are those of the distinct `digests`."""
    row = {digest: i for i, digest in enumerate(digests)}
    return np.asarray(terms[[row[query.digest] for query in queries]])
