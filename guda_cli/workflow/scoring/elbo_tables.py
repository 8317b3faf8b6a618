"""The ELBO tables of a set of models: read what is there, fill what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from guda_cli.data.queries import Query
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array
from guda_cli.store import action_key
from guda_cli.workflow.project.project import Project


class Tables:
    """One table a model, all on one grid and computed alike; rows are query digests."""

    def __init__(
        self,
        project: Project,
        keys: Mapping[str, tuple[str, dict[str, Any]]],
        grid: Grid,
        compute: Mapping[str, Any],
    ) -> None:
        self.project, self.grid, self.compute = project, grid, compute
        self.keys = {name: key for name, (key, _) in keys.items()}
        self._specs = {name: spec for name, (_, spec) in keys.items()}

    def missing(self, digests: Sequence[str]) -> dict[str, int]:
        """How many of `digests` each model has no row for."""
        wanted = set(digests)
        return {name: len(wanted - self.project.store.table_rows(key)) for name, key in self.keys.items()}

    def block_key(self, digests: Sequence[str]) -> str:
        """A key for the work of filling these rows of all tables: who holds its lease does it."""
        return action_key("elbo-block", 1, {"rows": sorted(set(digests))}, self.keys)

    def read(self, name: str, digests: Sequence[str]) -> tuple[Array, list[str]]:
        """Terms [found, draws, n] of the digests that have a row, in order, and those that have none."""
        found, missing = self.project.store.table_read(self.keys[name], digests)
        self.project.tell_notices()
        empty = np.empty((0, *self.grid.timesteps.shape))
        return np.asarray(found.get("terms", empty)), [str(row) for row in missing]

    def stored(self, queries: Sequence[Query]) -> dict[str, Array] | None:
        """Terms [queries, draws, n] under every model, by name; None if any is missing."""
        digests = list(dict.fromkeys(query.digest for query in queries))
        if any(self.missing(digests).values()):  # going by names, so that nothing is read in vain
            return None
        found = {}
        for name in self.keys:
            terms, missing = self.read(name, digests)
            if missing:  # its segment turned out to be damaged
                return None
            found[name] = _of(queries, digests, terms)
        return found

    def terms(
        self, name: str, queries: Sequence[Query], compute: Callable[[list[Query]], Array]
    ) -> tuple[Array, int]:
        """Terms [queries, draws, n] under one model, and how many distinct images had to be computed.

        What `compute` gives for missing images is published as one segment.
        """
        store, unique = self.project.store, {query.digest: query for query in queries}
        known, missing = self.read(name, list(unique))
        lacking = set(missing)
        order = [digest for digest in unique if digest not in lacking]
        if missing:
            fresh = compute([unique[digest] for digest in missing])
            if not store.read_only:
                store.table_publish(
                    self.keys[name], self._specs[name], missing, {"terms": fresh}, {"unit": "nats"}
                )
                store.table_compact(self.keys[name])
            known, order = np.concatenate([known, fresh]), order + missing
        return _of(queries, order, known), len(missing)


def _of(queries: Sequence[Query], digests: Sequence[str], terms: Array) -> Array:
    """The terms of each query; `terms` are those of the distinct `digests`."""
    row = {digest: i for i, digest in enumerate(digests)}
    return np.asarray(terms[[row[query.digest] for query in queries]])
