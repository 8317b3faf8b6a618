"""One run of `guda score`: from paths to results, block by block; torch only if a cell is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guda_cli.attribution.calibration import Calibration
from guda_cli.attribution.delta_elbo import Estimate
from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion import weighting as weightings
from guda_cli.diffusion.grid import Grid
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError
from guda_cli.phrases import plural
from guda_cli.report.answers.content import SIGN, QueryResult
from guda_cli.store import ActionRecord
from guda_cli.workflow.models.jobs import FULL, LazyJobs, Task
from guda_cli.workflow.project.compute import known_compute, remember_compute
from guda_cli.workflow.project.counterfactual_kinds import SUBSETS
from guda_cli.workflow.project.plan import CACHED, TO_DO, Step
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import answers, calibrating, counterfactuals, refining, remembered, term_sizes
from guda_cli.workflow.scoring.conditions import Given, conditions_for
from guda_cli.workflow.scoring.elbo_tables import Tables
from guda_cli.workflow.scoring.looks import looks_like
from guda_cli.workflow.scoring.ranking import AUTO, Ranking, check, choose
from guda_cli.workflow.scoring.refining import More, Scores, refine
from guda_cli.workflow.scoring.run import BLOCK, BlockResult, load

if TYPE_CHECKING:
    from guda_cli.workflow.project.compute import Compute
    from guda_cli.workflow.scoring.terms import Engine

MOST = 64  # draws at most, where a user asks for certainty


@dataclass(frozen=True)
class Settings:
    """What a score depends on beside the models."""

    method: str
    groups: tuple[str, ...]
    weighting: str
    grid: str
    timesteps: int
    draws: int
    seed: int
    oracle_seeds: tuple[int, ...] = ()
    given: Given = field(default_factory=Given)
    most_draws: int = 0
    """Draws at most of a score whose verdict hangs in the balance; none beyond `draws` where it is less."""
    rank: str = AUTO
    """By what groups are ranked: one of `ranking.KINDS`."""
    until: str = ""
    """How sure the first group's score has to be (`refining.until`)."""


class ScoreRun:
    """Scores images under one set of counterfactual models."""

    def __init__(self, project: Project, settings: Settings, device: str, *, remember: bool = True) -> None:
        self.project, self.settings, self.device = project, settings, device
        self.remember = remember  # for reports
        self.judges = remember and settings.method != SUBSETS.method
        weighting = weightings.parse(settings.weighting)
        check(settings.rank)
        if settings.until:
            refining.until(settings.until)
        grids.spec(settings.grid, settings.timesteps, settings.draws, settings.seed)  # refuses what is none
        self.found = counterfactuals.find(project, settings.method, settings.groups, settings.oracle_seeds)
        self.jobs = LazyJobs(project, self._setup)
        self._register_rebuilds()  # before the first read of a model's parts
        self.conditions = conditions_for(project, self.found.full, settings.given)
        self._weighting, self.schedule = weighting, project.model(self.found.full).schedule
        self.warnings = counterfactuals.warnings(project, self.found)
        self.method, self.weighting = settings.method, settings.weighting
        self.unit = answers.unit_of(weighting, unbiased=not settings.grid.startswith(grids.STRIDE))
        self.forwards = self.images = self.cached = self.calibrated = 0

    # -- what is scored ----------------------------------------------------------------------------

    @cached_property
    def grid_spec(self) -> dict[str, Any]:
        """The grid; the sizes of the terms are learnt first where its strata follow them."""
        s, layout = self.settings, None
        if grids.needs_edges(s.grid):
            layout = term_sizes.layout(self.project, self.found.full, s.timesteps, self.jobs)
        return grids.spec(s.grid, s.timesteps, s.draws, s.seed, layout)

    @cached_property
    def reading(self) -> answers.Reading:
        """How terms become scores."""
        return self._reading(self.grid_spec)

    def _reading(self, grid_spec: Mapping[str, Any]) -> answers.Reading:
        grid, project = grids.build(grid_spec, self.schedule.T), self.project
        return answers.Reading(
            grid, self.schedule, self._weighting, dict(project.data.counts), project.family.latent
        )

    def describe(self) -> str:
        """How to read the scores, in one line."""
        s, grid = self.settings, self.reading.grid
        n = grid.timesteps.shape[1]
        ranked = f", {self.ranking.words}" if self.ranking.words else ""
        partial = "" if grid.unbiased else ", a partial sum"
        return (
            f"{s.method}{self._seeds()}, weighting {s.weighting} ({self.reading.unit}), {n} timesteps"
            f" ({s.grid}{partial}) x {s.draws} draws, seed {s.seed}{ranked}. {SIGN}"
        )

    def _seeds(self) -> str:
        seeds = self.found.seeds
        return f" (mean of seeds {', '.join(map(str, seeds))})" if len(seeds) > 1 else ""

    def announce(self) -> None:
        """Warn of failed checks and say which groups have no model."""
        for text in self.warnings:
            self.project.console.warn(text)
        if self.found.lacking:
            names = [what.name for what in self.found.lacking]
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            command = self.found.kind.command(names[:1])
            self.project.console.say(f"not scored, as there is no model without them: {shown} ({command})")

    def context(self) -> dict[str, Any]:
        """What every JSON line says of how it was computed."""
        return {
            "method": self.method,
            "weighting": self.weighting,
            "unit": self.unit,
            "rank": self.ranking.kind,
            "grid": dict(self.grid_spec),
            "recipe": self.project.recipe.name,
            "models": {
                name or "full": record.outputs["weights"] for name, record in self.found.records().items()
            },
            "not_scored": [what.name for what in self.found.lacking],
            "warnings": self.warnings,
        }

    def summary(self) -> str:
        """What was computed and what came from the store."""
        scored = plural(self.images, "image", "images")
        if self.calibrated:
            scored += f" ({self.calibrated:,} more forwards calibrated the verdicts, once for all images)"
        if self.forwards == 0:
            ran = "" if self.calibrated else ", no model was run"
            return f"{scored}: every term was in the store{ran}"
        return f"{scored}: {self.forwards:,} network forwards, {self.cached:,} reused from the store"

    # -- running -----------------------------------------------------------------------------------

    def blocks(self, paths: Sequence[str]) -> Iterator[BlockResult]:
        """Score the images of `paths` in blocks; a bad file does not stop the others."""
        rows = self.reading.grid.rows * len(self.found.records())
        with self.project.console.progress("score", len(paths) * rows, unit="forward") as bar:
            for start in range(0, len(paths), BLOCK):
                part = list(paths[start : start + BLOCK])
                queries, bad = load(self.project, part, self.conditions)
                bar.advance(len(bad) * rows)
                done = self._score(queries, bar.advance) if queries else []
                yield BlockResult(done, queries, bad)

    def score(self, queries: Sequence[Query]) -> list[QueryResult]:
        """Results of images that are in memory already."""
        parts = [list(queries[start : start + BLOCK]) for start in range(0, len(queries), BLOCK)]
        rows = self.reading.grid.rows * len(self.found.records())
        with self.project.console.progress("score", len(queries) * rows, unit="forward") as bar:
            return [result for part in parts for result in self._score(part, bar.advance)]

    def terms(self, queries: list[Query]) -> dict[str, Array]:
        """-ELBO terms [queries, draws, n] of images that this run has scored, by the models' labels."""
        return self._terms(self.grid_spec, queries, lambda n: None)[1]

    def plan(self, paths: Sequence[str]) -> list[Step]:
        """One step a model: how many images have no terms under it yet."""
        queries, _ = load(self.project, paths, self.conditions)
        digests = [query.digest for query in queries]
        tables, steps = self._planned_tables(), self._plan_sizes()
        for name, missing in tables.missing(digests).items():
            what = f"terms under the {'full model' if not name else 'model without ' + name}"
            why = f"{missing / tables.grid.rows:.3g} of {len(set(digests))} images" if missing else ""
            state, key = TO_DO if missing else CACHED, tables.keys[name]
            steps.append(Step(what, state, why, key, float(missing), command="guda score"))
        return steps + self._plan_calibration(tables)

    def _plan_calibration(self, tables: Tables) -> list[Step]:
        """What scoring the calibration images would take; about, as long as they have not been chosen."""
        wanted = calibrating.size(self.project) if self.judges else 0
        if not wanted:
            return []
        known = calibrating.known(self.project)
        mine = self._tables(calibrating.grid_of(tables.grid.spec), tables.compute)
        if known is None:
            missing = wanted * mine.grid.rows * len(self.found.records())
        else:
            missing = sum(mine.missing([query.digest for query in known.queries]).values())
        state, why = TO_DO if missing else CACHED, f"{wanted} images of known groups"
        return [Step("calibrating the verdicts", state, why, "", float(missing), command="guda score")]

    def _plan_sizes(self) -> list[Step]:
        if not grids.needs_edges(self.settings.grid):
            return []
        action = term_sizes.action(self.project, self.found.full)
        known = self.project.store.lookup(action.key) is not None
        cost = 0.0 if known else action.forwards
        return [Step(action.what, CACHED if known else TO_DO, "", action.key, cost, command="guda score")]

    def _planned_tables(self) -> Tables:
        """The tables as they will be; as long as the sizes are not known, those of even strata."""
        s, layout = self.settings, None
        if grids.needs_edges(s.grid):
            layout = term_sizes.known_layout(self.project, self.found.full, s.timesteps)
        grid_spec = grids.spec(s.grid, s.timesteps, s.draws, s.seed, layout)
        return self._tables(grid_spec, self._known_compute())

    def write_map(self, query: Query, result: QueryResult, top: int, path: Path) -> None:
        """Draw per-pixel delta-ELBO maps of the first `top` groups of one image into a PNG."""
        from guda_cli.report.answers import maps

        names = [entry.group for entry in result.scores[:top]]
        multiplier = self.reading.weighting.multiplier(self.reading.schedule)
        models = {name: tuple(model.record for model in self.found.named(name)) for name in names}
        found = self._engine.maps(query, {"": (self.found.full,), **models}, multiplier)
        panels = [(f"{e.group} {e.score:+.3g}", found[e.group]) for e in result.scores[:top]]
        image = maps.panel(query.pixels, panels, f"delta-ELBO a pixel, weighting {self.settings.weighting}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        except (OSError, ValueError) as err:
            raise DataError(f"cannot write the map to {path}", why=str(err), fix="--map FILE.png") from None

    def _score(self, queries: list[Query], advance: Callable[[int], None]) -> list[QueryResult]:
        calibration = self.calibration
        started, before = time.monotonic(), self.forwards
        tables, cells = self._terms(self.grid_spec, queries, advance)
        facts = {
            "images": len(queries),
            "forwards": self.forwards - before,
            "wall_seconds": time.monotonic() - started,
        }
        if self.remember:
            remembered.remember(self.project, self.found, self.grid_spec, tables.compute, queries, facts)
        self.images += len(queries)
        looks, full = looks_like(self.project, queries), cells[""]
        found = answers.scores_of(self.reading, full, self.found.mean(cells))
        scores = replace(
            Scores.of(list(found.values()), self.reading.grid.draws),
            spread=answers.between_seeds(self.reading, cells, self.found),
            seeds=max(1, len(self.found.seeds)),
        )
        scores = self._refined(queries, full, scores, calibration)
        return answers.assemble(
            self.reading, queries, full, list(found), scores, looks, calibration, self.ranking
        )

    def _refined(
        self, queries: Sequence[Query], full: Array, scores: Scores, calibration: Calibration | None
    ) -> Scores:
        """With more draws where the verdict hangs in the balance, and where the user wants to be surer."""
        s = self.settings
        if s.until:
            wanted = refining.until(s.until, lambda now: self.ranking.values(now, calibration))
            scores = refine(scores, wanted, self._more(queries), max(MOST, s.most_draws))
        if calibration is not None and s.most_draws > s.draws:
            strange = answers.unlike(self.reading, full, calibration)
            pending = refining.in_the_balance(calibration, answers.LEVEL, strange)
            scores = refine(scores, pending, self._more(queries), s.most_draws)
        return scores

    @cached_property
    def ranking(self) -> Ranking:
        """By what groups are ranked."""
        counts, calibrated = self.project.data.counts, self.calibration is not None
        return choose(self.settings.rank, list(self.found.groups), counts, calibrated=calibrated)

    def _more(self, queries: Sequence[Query]) -> More:
        """Scores of one group for some of the queries from more draws; the tables take what is computed."""
        groups = list(self.found.groups)

        def more(j: int, rows: Sequence[int], draws: int) -> Estimate:
            grid_spec, chosen = grids.with_draws(self.grid_spec, draws), [queries[i] for i in rows]
            models = {model.label: model.record for model in self.found.groups[groups[j]]}
            cells = self._terms(grid_spec, chosen, lambda n: None, {"": self.found.full, **models})[1]
            without = np.mean([cells[name] for name in models], axis=0)
            return answers.score_of(self._reading(grid_spec), cells[""], without)

        return more

    @cached_property
    def calibration(self) -> Calibration | None:
        """What scores are compared with; the calibration images are scored first, block by block."""
        known = calibrating.images(self.project) if self.judges else None
        if known is None:
            return None
        grid_spec, queries = calibrating.grid_of(self.grid_spec), known.queries
        reading, before = self._reading(grid_spec), self.forwards
        total = len(queries) * reading.grid.rows * len(self.found.records())
        parts = []
        with self.project.console.progress("calibrate", total, unit="forward") as bar:
            for start in range(0, len(queries), BLOCK):
                parts.append(self._terms(grid_spec, queries[start : start + BLOCK], bar.advance)[1])
        self.calibrated, self.forwards = self.forwards - before, before
        cells = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        groups = self.found.mean(cells)
        return calibrating.calibrate(reading, cells[""], groups, known.members(groups))

    def _terms(
        self,
        grid_spec: Mapping[str, Any],
        queries: list[Query],
        advance: Callable[[int], None],
        records: Mapping[str, ActionRecord] | None = None,
    ) -> tuple[Tables, dict[str, Array]]:
        """Terms of a block under every model of `records`, by name: from the tables, or computed."""
        tables = self._tables(grid_spec, self._known_compute(), records)
        cells = self._stored(tables, queries, advance)
        if cells is None:  # this process may round otherwise, and then adds to tables of its own
            tables = self._tables(grid_spec, self._live_compute(), records)
            key = tables.block_key([query.digest for query in queries])
            with self.project.lease(key, f"scoring {len(queries)} images"):
                cells = self._filled(tables, queries, advance)
        return tables, cells

    def _stored(
        self, tables: Tables, queries: list[Query], advance: Callable[[int], None]
    ) -> dict[str, Array] | None:
        """Terms of a block under every model, by removal name; None unless the tables hold them all."""
        cells = tables.stored(queries)
        if cells is not None:
            models, rows = len(cells), tables.grid.rows
            self.cached += models * len({query.digest for query in queries}) * rows
            advance(models * len(queries) * rows)
        return cells

    def _filled(
        self, tables: Tables, queries: list[Query], advance: Callable[[int], None]
    ) -> dict[str, Array]:
        """Terms of a block under every model, by removal name; what the tables lack is computed."""
        distinct, rows = len({query.digest for query in queries}), tables.grid.rows
        cells = {}
        for name, record in tables.records.items():

            def compute(wanted: list[Query], grid: Grid, record: ActionRecord = record) -> Array:
                return self._engine.terms(record, wanted, grid)

            cells[name], fresh = tables.terms(name, queries, compute)
            self.forwards += fresh
            self.cached += distinct * rows - fresh
            advance(len(queries) * rows)
        return cells

    # -- torch, only where needed ------------------------------------------------------------------

    def _register_rebuilds(self) -> None:
        """Let damaged models be made again on use."""
        full = self.found.full
        if self.project.model(full).trained:
            self.jobs.job(FULL)
        for model in self.found.models():
            task = Task(model.action.operation, model.removal, model.seed)
            self.jobs.job(task, full, model.action)

    def _setup(self) -> Compute:
        return remember_compute(self.project, self.device, self.project.recipe.score.dtype)

    def _known_compute(self) -> Mapping[str, Any]:
        return known_compute(self.project, self.device, self.project.recipe.score.dtype)

    def _live_compute(self) -> Mapping[str, Any]:
        return self.jobs.compute.key

    @cached_property
    def _engine(self) -> Engine:
        from guda_cli.workflow.scoring.terms import Engine

        models = self.jobs.models(self.found.full)
        if models.learned_variance:
            self.project.console.say("this model also predicts a variance; only its noise half is scored")
        return Engine(models, self.reading.grid, self.settings.seed, self.jobs.compute)

    def _tables(
        self,
        grid_spec: Mapping[str, Any],
        compute: Mapping[str, Any],
        records: Mapping[str, ActionRecord] | None = None,
    ) -> Tables:
        models = self.found.records() if records is None else records
        return Tables(self.project, models, grid_spec, compute, self.schedule.T)
