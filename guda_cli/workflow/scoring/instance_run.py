"""One run of `guda score` with a rival method; torch only if something is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from guda_cli.attribution import aggregate, methods
from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import RecipeError
from guda_cli.phrases import plural
from guda_cli.report.answers.content import QueryResult
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import removal
from guda_cli.workflow.models.jobs import FULL, LazyJobs
from guda_cli.workflow.project.compute import known_compute, remember_compute
from guda_cli.workflow.project.plan import CACHED, TO_DO, Step
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.scoring.conditions import Given, conditions_for
from guda_cli.workflow.scoring.instance_answers import answer, best_instances, by_prompt
from guda_cli.workflow.scoring.instance_context import context_of
from guda_cli.workflow.scoring.instance_settings import MethodSettings
from guda_cli.workflow.scoring.instance_store import ScoreTable, preparation, remember
from guda_cli.workflow.scoring.looks import looks_like
from guda_cli.workflow.scoring.pool import Pool
from guda_cli.workflow.scoring.run import BLOCK, BlockResult, load
from guda_cli.workflow.scoring.stored_arrays import pack, unpack

if TYPE_CHECKING:
    from guda_cli.attribution.rivals.engine import Arrays, Engine, GroupEngine
    from guda_cli.workflow.project.compute import Compute

PART = 8  # queries published together: what a kill can cost


class InstanceRun:
    """Scores images by the training images that a method finds; groups are aggregated from these."""

    weighting = "none"

    def __init__(
        self,
        project: Project,
        method: MethodSettings,
        device: str,
        *,
        groups: Sequence[str] = (),
        given: Given,
        instances: int = 0,
    ) -> None:
        self.project, self.settings, self.device, self.instances = project, method, device, instances
        self.method, self.unit = method.method, f"{method.method} score"
        self.how = aggregate.parse_aggregation(method.aggregate)
        self.full = project.require_full()
        self._check_timesteps()
        self.removals = removal.of_groups(list(groups) or list(project.data.counts), project.data.counts)
        self.conditions = conditions_for(project, self.full, given)
        self.jobs = LazyJobs(project, self._setup)
        if self.project.model(self.full).trained:
            self.jobs.job(FULL)
        self.warnings: list[str] = []
        self.forwards, self.images = 0.0, 0
        self.computed = 0  # distinct images that were not in the store

    def _check_timesteps(self) -> None:
        wanted = int(self.settings.values.get("timesteps", 0))
        T = self.project.model(self.full).schedule.T if wanted else 0
        if wanted > T:
            raise RecipeError(
                f"attribution.timesteps = {wanted} are more than the model has",
                why=f"its noise has {T} steps",
                fix=f"--set attribution.timesteps={T}",
            )

    # -- what is scored ----------------------------------------------------------------------------

    def describe(self) -> str:
        """How the scores were computed, in one line."""
        values = ", ".join(f"{k} {v}" for k, v in self.settings.values.items() if v is not None)
        name = self.settings.name if self.settings.encoder else f"{self.method} ({values})"
        over = f", {self.how} over a group's images" if self.settings.scores_images else ""
        return f"{name}{over}."

    def announce(self) -> None:
        """Nothing to warn of."""

    def summary(self) -> str:
        """What was computed."""
        if not self.images:
            return "no image was scored"
        scored = plural(self.images, "image", "images")
        if self.forwards == 0:
            return f"{scored}: no network was run"
        return f"{scored}: {self.forwards:,.0f} forward-equivalents"

    def context(self) -> dict[str, Any]:
        """What every JSON line says of how it was computed."""
        return {
            "method": self.method,
            "weighting": self.weighting,
            "unit": self.unit,
            "recipe": self.project.recipe.name,
            "settings": {**self.settings.values, "aggregate": str(self.how)},
            "models": {"full": self.full.outputs["weights"]},
            "warnings": self.warnings,
        }

    # -- running -----------------------------------------------------------------------------------

    def blocks(self, paths: Sequence[str]) -> Iterator[BlockResult]:
        """Score the images of `paths` in blocks; a bad file does not stop the others."""
        self._begin()
        with self.project.console.progress(f"score: {self.method}", len(paths), unit="image") as bar:
            for start in range(0, len(paths), BLOCK):
                queries, bad = load(self.project, paths[start : start + BLOCK], self.conditions)
                bar.advance(len(bad))
                done = self._score(queries, bar.advance) if queries else []
                yield BlockResult(done, queries, bad)

    def plan(self, paths: Sequence[str]) -> list[Step]:
        """The preparation, and how many images have no scores yet."""
        queries, _ = load(self.project, paths, self.conditions)
        digests = [query.digest for query in queries]
        action = preparation(self.project, self.full, self.settings)
        record = self.project.store.lookup(action.key)
        steps = [Step(action.what, CACHED if record else TO_DO, key=action.key, command="guda score")]
        missing = len(set(digests))
        if record is not None:
            missing = len(self._table(record, self._known_compute()).missing(digests))
        why = f"{missing} of {plural(len(set(digests)), 'image', 'images')}" if missing else ""
        return [*steps, Step(f"{self.method} scores", TO_DO if missing else CACHED, why)]

    def read(self, queries: list[Query]) -> list[QueryResult]:
        """Results of images scored before; those without a row are left out. Runs nothing."""
        record, known = self.known_preparation(), self._known_compute()
        rows = self._table(record, known).read([q.digest for q in queries]) if record else {}
        queries = [query for query in queries if query.digest in rows]
        return self._results(queries, rows) if queries else []

    def known_preparation(self) -> ActionRecord | None:
        """What was prepared earlier, if it was."""
        return self.project.store.lookup(preparation(self.project, self.full, self.settings).key)

    def _begin(self) -> None:
        """What comes before the queries' progress bar."""
        self._prepared  # noqa: B018 - made once

    def _score(self, queries: list[Query], advance: Callable[[int], None]) -> list[QueryResult]:
        started, before, computed = time.monotonic(), self.forwards, self.computed
        rows = self._rows(queries, advance)
        out = self._results(queries, rows)
        facts = {
            "images": len(queries),
            "computed": self.computed - computed,
            "forwards": self.forwards - before,
            "wall_seconds": time.monotonic() - started,
        }
        remember(self.project, self.full, self.settings, queries, facts)
        self.images += len(queries)
        return out

    def _results(self, queries: list[Query], rows: Mapping[str, Array]) -> list[QueryResult]:
        names = [what.name for what in self.removals]
        table = self._of_groups(queries, rows, names)
        looks = looks_like(self.project, queries)
        out = []
        for query, scores, look in zip(queries, table, looks, strict=True):
            row = rows.get(query.digest) if self.instances else None
            found = best_instances(self._pool, row, self.instances) if row is not None else ()
            out.append(answer(query, scores, names, look, found))
        return out

    def _of_groups(self, queries: list[Query], rows: Mapping[str, Array], names: list[str]) -> Array:
        """Scores [queries, groups]."""
        of_images = np.stack([rows[query.digest] for query in queries]).astype(np.float64)
        return aggregate.group_scores(of_images, self._members, self.how, groups=names)

    def _rows(self, queries: list[Query], advance: Callable[[int], None]) -> dict[str, Array]:
        """Scores of training images for each query's digest: read where there, else computed."""
        wanted = list(dict.fromkeys(query.digest for query in queries))
        rows = self._table(self._prepared, self._known_compute()).read(wanted)
        if len(rows) == len(wanted):
            advance(len(queries))
            return rows

        def compute(some: list[Query]) -> Array:
            found, forwards = by_prompt(lambda each: self._engine.scores(self._arrays, each), some)
            self.forwards += forwards
            self.computed += len(some)
            advance(len(some))
            return found

        table = self._table(self._prepared, self._live_compute())
        advance(len(queries) - len(table.missing(wanted)))
        with self.project.lease(table.key, f"scoring images by {self.method}"):
            return table.fill(queries, compute, PART)

    # -- what is made once -------------------------------------------------------------------------

    @cached_property
    def _pool(self) -> Pool:
        values = self.settings.values
        return Pool.of(self.project.dataset(), values.get("per_group"), int(values.get("seed", 0)))

    @cached_property
    def _members(self) -> Any:
        return self._pool.members(self.removals)

    @cached_property
    def _prepared(self) -> ActionRecord:
        action = preparation(self.project, self.full, self.settings)
        return self.project.ensure(Job(action, lambda: self._prepare(action.what)))

    def _prepare(self, what: str) -> Made:
        engine = self._engine
        started = time.monotonic()  # without the import of torch and the loading of the model
        with self.project.console.progress(what, engine.expected_forwards(), unit="forward") as bar:
            done = engine.prepare(bar.advance)
        facts = {
            "name": self.settings.name,
            "forwards": done.forwards,
            "images": len(self._pool.indices),
            "wall_seconds": time.monotonic() - started,
            **done.facts,
        }
        return Made({"prepared": pack(done.arrays)}, facts)

    @cached_property
    def _arrays(self) -> Arrays:
        return unpack(self.project.read(self._prepared, "prepared"))

    def _table(self, record: ActionRecord, compute: Mapping[str, Any]) -> ScoreTable:
        return ScoreTable.of(self.project, self.full, self.settings, record.outputs["prepared"], compute)

    @cached_property
    def _engine(self) -> Engine:
        made: Engine = methods.engine(self.settings.row)(
            context_of(self.jobs, self.full, self._pool, self.settings, self.device)
        )
        return made

    def _setup(self) -> Compute:
        return remember_compute(self.project, self.device)

    # Products of pixels need no torch: they are the same on every device.

    def _known_compute(self) -> Mapping[str, Any]:
        return {} if self.settings.plain_pixels else known_compute(self.project, self.device)

    def _live_compute(self) -> Mapping[str, Any]:
        return {} if self.settings.plain_pixels else self.jobs.compute.key


class GroupRun(InstanceRun):
    """Scores groups by their names, on the spot: nothing is prepared, nothing kept but that it was done."""

    def plan(self, paths: Sequence[str]) -> list[Step]:
        """See `InstanceRun`: there is nothing to do, but what is asked is looked at."""
        load(self.project, paths, self.conditions)
        return [Step(f"{self.method} scores", CACHED, "made up on the spot")]

    def read(self, queries: list[Query]) -> list[QueryResult]:
        """See `InstanceRun`: every image has scores."""
        return self._results(queries, {}) if queries else []

    def known_preparation(self) -> ActionRecord | None:
        """None: there is nothing to prepare."""
        return None

    def _begin(self) -> None:
        pass

    def _rows(self, queries: list[Query], advance: Callable[[int], None]) -> dict[str, Array]:
        return {}

    def _of_groups(self, queries: list[Query], rows: Mapping[str, Array], names: list[str]) -> Array:
        engine: GroupEngine = methods.engine(self.settings.row)(self.settings.values)
        return engine.group_scores([query.digest for query in queries], names)


def make_run(
    project: Project, method: MethodSettings, device: str, *, groups: Sequence[str] = (), given: Given,
    instances: int = 0,
) -> InstanceRun:  # fmt: skip
    """The run of a method that scores training images or groups."""
    kind = InstanceRun if method.scores_images else GroupRun
    return kind(project, method, device, groups=groups, given=given, instances=instances)
