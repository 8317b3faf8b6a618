"""What is judged: the images that the oracle has scored, the groups, and scores read from ELBO tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from guda_cli.attribution import delta_elbo
from guda_cli.attribution import oracle_seeds as oracles
from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion import weighting as weightings
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.errors import MissingError
from guda_cli.phrases import plural
from guda_cli.store import ActionRecord
from guda_cli.workflow.judging.held_out import tuned_groups
from guda_cli.workflow.keys import removal
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.counterfactual_kinds import LOGO
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import asked_scores, counterfactuals
from guda_cli.workflow.scoring.asked_scores import Asked
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals
from guda_cli.workflow.scoring.elbo_tables import Tables


@dataclass(eq=False)
class Bench:
    """Images, groups and oracle of one project; reads the store, runs nothing."""

    project: Project
    found: Counterfactuals
    queries: list[Query]
    columns: list[Removal]
    left_out: tuple[str, ...]
    grid_spec: Mapping[str, Any]
    compute: Mapping[str, Any]
    centred: bool = False
    notes: Sequence[str] = ()
    """Which images are left out, and how to see them."""
    _terms: dict[str, Array] = field(default_factory=dict)

    @cached_property
    def schedule(self) -> Schedule:
        """The full model's."""
        return self.project.model(self.found.full).schedule

    @cached_property
    def grid(self) -> Grid:
        """Of the terms."""
        return grids.build(self.grid_spec, self.schedule.T)

    @cached_property
    def score_records(self) -> list[ActionRecord]:
        """Of every scoring of the full model."""
        weights = self.found.full.outputs["weights"]
        return [r for r in self.project.store.records("score") if r.inputs["full"] == weights]

    @property
    def digests(self) -> list[str]:
        """Row keys of the queries."""
        return [query.digest for query in self.queries]

    def tables(self, record: ActionRecord) -> Tables:
        """The ELBO tables of one model, by the name ""."""
        return Tables(self.project, {"": record}, self.grid_spec, self.compute, self.schedule.T)

    def lacking(self, record: ActionRecord) -> int:
        """How many of the queries have no terms under a model, or not all."""
        return len(set(self.digests) - self.tables(record).complete(self.digests))

    def terms(self, record: ActionRecord) -> Array:
        """-ELBO terms [queries, draws, n] under a model; MissingError when some were found damaged."""
        if record.key not in self._terms:
            terms, missing = self.tables(record).read("", self.digests)
            if missing:
                raise MissingError(
                    f"{len(missing)} images have no terms under {record.provenance.get('what')}",
                    fix="guda score IMAGES --method guda,logo",
                )
            self._terms[record.key] = terms
        return self._terms[record.key]

    def scores(self, models: Sequence[ActionRecord], weighting: str) -> Array:
        """Delta-ELBO [queries, groups] of models in the order of `columns`."""
        multiplier = weightings.parse(weighting).multiplier(self.schedule)
        full = self.terms(self.found.full)
        out = [delta_elbo.delta_elbo(full, self.terms(m), self.grid, multiplier).value for m in models]
        return self.maybe_centred(np.stack(out, axis=1))

    def maybe_centred(self, table: Array) -> Array:
        """`table` [queries, groups], less each group's mean where that was asked for."""
        return oracles.centre(table) if self.centred else table

    def oracle(self, weighting: str) -> list[Array]:
        """The oracle's scores [queries, groups], one matrix a seed."""
        models = [self.found.groups[what] for what in self.columns]
        return [
            self.scores([of_group[s].record for of_group in models], weighting)
            for s in range(len(self.found.seeds))
        ]


def open_bench(
    project: Project, *, centred: bool = False, seeds: Sequence[int] = (), asked: Asked | None = None
) -> Bench:
    """The bench of the current recipe: images scored under every model of the oracle, as `asked`.

    MissingError when there is no oracle, or no image scored with it.
    """
    found = counterfactuals.find(project, LOGO.method, seeds=seeds)
    asked = asked or Asked()
    scorings = asked_scores.choose(project, found, asked)
    command = f"guda score IMAGES --method logo{asked.options}"
    if not scorings.records:
        raise MissingError("the oracle has scored no image yet", fix=command)
    out = tuned_groups(project, found.full)
    seen = {group for what in removal.of_groups(out, project.data.counts) for group in what.groups}
    columns = [what for what in found.groups if not seen & {*what.groups}]
    bench = Bench(project, found, [], columns, out, scorings.grid, scorings.compute, centred)
    bench.notes = scorings.notes
    bench.queries = _complete(bench, scorings.queries)
    if left_out := len(scorings.queries) - len(bench.queries):
        images = plural(left_out, "image is", "images are")
        bench.notes = (
            *bench.notes,
            f"{images} left out: not scored under every model of the oracle ({command})",
        )
    if not bench.queries:
        raise MissingError("no image has been scored under every model of the oracle", fix=command)
    if len(columns) < 2:
        raise MissingError(
            "the oracle has fewer than two groups to rank",
            why=f"left out, as settings were tuned on them: {', '.join(out)}" if out else "",
            fix="guda train --each-group",
        )
    return bench


def _complete(bench: Bench, queries: Sequence[Query]) -> list[Query]:
    """Those of `queries` that have terms under the full model and the whole oracle, by name."""
    known = {query.digest: query for query in queries}
    models = [bench.found.full]
    models += [model.record for what in bench.columns for model in bench.found.groups[what]]
    complete = set(known)
    for record in models:
        complete &= bench.tables(record).complete(sorted(complete))
    return sorted((known[digest] for digest in complete), key=lambda query: query.name)
