"""Terms of images under a set of models: from the tables, or computed; torch only if a cell is missing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from guda_cli import memory
from guda_cli.console import Meter, SilentMeter
from guda_cli.data.queries import Query
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array
from guda_cli.phrases import plural
from guda_cli.store import ActionRecord
from guda_cli.workflow.models.jobs import FULL, LazyJobs, Task
from guda_cli.workflow.project import precision
from guda_cli.workflow.project.compute import AUTO, Form, known_compute, remember_compute
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals
from guda_cli.workflow.scoring.elbo_tables import Tables

if TYPE_CHECKING:
    from guda_cli.workflow.project.compute import Compute
    from guda_cli.workflow.scoring.terms import Engine


class ModelTerms:
    """The full model's and the counterfactual models' terms; counts what was computed and what was there."""

    def __init__(self, project: Project, found: Counterfactuals, device: str, seed: int) -> None:
        self.project, self.found, self.device, self.seed = project, found, device, seed
        self.jobs = LazyJobs(project, self._setup)
        self._register_rebuilds()  # before the first read of a model's parts
        self.forwards = self.cached = 0
        self.planned = 0.0
        """Forwards that are going to be asked for, about: whether the fastest way is worth looking for."""

    def tables(
        self,
        grid_spec: Mapping[str, Any],
        compute: Mapping[str, Any] | None = None,
        records: Mapping[str, ActionRecord] | None = None,
    ) -> Tables:
        """The tables of all models, or of `records`, on a grid; computed as they were last, unless told."""
        models = self.found.records() if records is None else records
        how = self.known_compute() if compute is None else compute
        return Tables(self.project, models, grid_spec, how, self.project.model(self.found.full).schedule.T)

    def of(
        self,
        grid_spec: Mapping[str, Any],
        queries: list[Query],
        bar: Meter | None = None,
        records: Mapping[str, ActionRecord] | None = None,
    ) -> tuple[Tables, dict[str, Array]]:
        """The terms [queries, draws, n] of images under each model, by its label, and their tables.

        `bar` counts forwards, those that are stored already apart.
        """
        tables, bar = self.tables(grid_spec, records=records), bar or SilentMeter("", 0, "forward", 0)
        terms = len(tables.records) * len(queries) * tables.grid.rows
        what = f"{terms:,} terms ({plural(len(queries), 'image', 'images')}, every model, every draw)"
        memory.check(8 * terms, what, fix="--draws 16")
        cells = self._stored(tables, queries, bar)
        if cells is None:
            self.project.begin_check(tables.records.values())
            # this process may round otherwise, and then adds to tables of its own
            tables = self.tables(grid_spec, self.jobs.compute.key, records)
            key = tables.block_key([query.digest for query in queries])
            with self.project.lease(key, f"scoring {plural(len(queries), 'image', 'images')}"):
                cells = self._filled(tables, queries, bar)
        return tables, cells

    def _stored(self, tables: Tables, queries: list[Query], bar: Meter) -> dict[str, Array] | None:
        """None unless the tables hold them all."""
        cells = tables.stored(queries)
        if cells is not None:
            models, rows = len(cells), tables.grid.rows
            self.cached += models * len({query.digest for query in queries}) * rows
            bar.found(models * len(queries) * rows)
        return cells

    def _filled(self, tables: Tables, queries: list[Query], bar: Meter) -> dict[str, Array]:
        """What the tables lack is computed."""
        distinct, rows = len({query.digest for query in queries}), tables.grid.rows
        cells = {}
        for name, record in tables.records.items():

            def compute(wanted: list[Query], grid: Grid, record: ActionRecord = record) -> Array:
                return self.engine.terms(record, wanted, grid)

            cells[name], fresh = tables.terms(name, queries, compute)
            self.forwards += fresh
            self.cached += distinct * rows - fresh
            bar.found(len(queries) * rows - fresh)
            bar.advance(fresh)
        return cells

    @cached_property
    def engine(self) -> Engine:
        """What runs the networks."""
        from guda_cli.workflow.scoring.terms import Engine

        models = self.jobs.models(self.found.full)
        if models.learned_variance:
            self.project.console.say("this model also predicts a variance; only its noise half is scored")
        return Engine(models, self.seed, self.jobs.compute)

    def _register_rebuilds(self) -> None:
        """Let damaged models be made again on use."""
        full = self.found.full
        if self.project.model(full).trained:
            self.jobs.job(FULL)
        for model in self.found.models():
            task = Task(model.action.operation, model.removal, model.seed)
            self.jobs.job(task, full, model.action)

    def _setup(self) -> Compute:
        return remember_compute(self.project, self.device, self._form)

    def _form(self, compute: Compute) -> Form:
        dtype = self.project.recipe.score.dtype
        if dtype != AUTO:
            return Form(dtype)
        from guda_cli.workflow.scoring import deciding

        return deciding.form(self.project, self.found, compute, self.planned, self.jobs)

    def known_compute(self) -> Mapping[str, Any]:
        """How tables are computed here, as far as is known without torch; empty where it is not."""
        return known_compute(self.project, self.device, self._known_form)

    def _known_form(self, kind: str) -> Form:
        dtype = self.project.recipe.score.dtype
        if dtype != AUTO or kind == "cpu":
            return Form("float32" if dtype == AUTO else dtype)
        known = precision.known(self.project, self.found.full, kind)
        return Form() if known is None else known.taken
