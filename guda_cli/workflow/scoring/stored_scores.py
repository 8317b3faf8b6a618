"""Scores as the store has them, from as many draws as each was given. Runs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from guda_cli.attribution.delta_elbo import Estimate
from guda_cli.data.dataset import Mask
from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion.schedule import Array
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import answers
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals
from guda_cli.workflow.scoring.elbo_tables import Tables
from guda_cli.workflow.scoring.refining import Scores, refine

MOST = 1 << 16


@dataclass(frozen=True, eq=False)
class StoredScores:
    """Scores of `queries` under the models `found`, on a grid and computed as `last` says."""

    project: Project
    found: Counterfactuals
    reading: answers.Reading
    last: Mapping[str, Any]
    queries: Sequence[Query]

    def scores(self, cells: Mapping[str, Array]) -> Scores:
        """From terms [queries, draws, n] by the models' labels, and what the tables hold beyond them."""
        known = answers.first_scores(self.reading, cells, self.found)
        return refine(known, self._deeper, self._more, MOST)

    @property
    def _groups(self) -> list[Removal]:
        return list(self.found.groups)

    def _tables(self, j: int, draws: int) -> Tables:
        records = self.found.records_of(self._groups[j])
        grid_spec, T = grids.with_draws(self.last["grid"], draws), self.reading.schedule.T
        return Tables(self.project, records, grid_spec, self.last["compute"], T)

    def _deeper(self, scores: Scores) -> Mask:
        """Of which scores the tables hold twice the draws."""
        out: Mask = np.zeros(scores.value.shape, dtype=np.bool_)
        digests = [query.digest for query in self.queries]
        for j in range(len(self._groups)):
            for draws in np.unique(scores.draws[:, j]).tolist():
                there = self._tables(j, 2 * draws).complete(digests)
                out[:, j] |= (scores.draws[:, j] == draws) & [digest in there for digest in digests]
        return out

    def _more(self, j: int, rows: Sequence[int], draws: int) -> Estimate | None:
        tables = self._tables(j, draws)
        cells = tables.stored([self.queries[i] for i in rows])
        if cells is None:  # a segment turned out damaged
            return None
        reading = replace(self.reading, grid=tables.grid)
        return answers.score_of(reading, cells[""], self.found.mean_of(self._groups[j], cells))
