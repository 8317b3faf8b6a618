"""One run of `guda score`: from paths to results, block by block; torch only if a cell is missing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from guda_cli.attribution.calibration import Calibration
from guda_cli.attribution.delta_elbo import Estimate
from guda_cli.console import Meter
from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion import weighting as weightings
from guda_cli.diffusion.schedule import Array
from guda_cli.phrases import few, plural
from guda_cli.report.answers.content import QueryResult
from guda_cli.sections import ScoreSpec
from guda_cli.workflow.project import precision
from guda_cli.workflow.project.counterfactual_kinds import SUBSETS
from guda_cli.workflow.project.plan import Step, forward_seconds, timed
from guda_cli.workflow.project.project import SHORT_KEY, Project
from guda_cli.workflow.scoring import (
    answers,
    calibrating,
    counterfactuals,
    refining,
    remembered,
    score_plan,
    term_sizes,
)
from guda_cli.workflow.scoring.conditions import Given, conditions_for
from guda_cli.workflow.scoring.looks import looks_like
from guda_cli.workflow.scoring.model_terms import ModelTerms
from guda_cli.workflow.scoring.ranking import AUTO, Ranking, check, choose
from guda_cli.workflow.scoring.refining import More, Scores, refine
from guda_cli.workflow.scoring.run import BLOCK, BlockResult, load
from guda_cli.workflow.scoring.strangers import FORWARDS, Strangers

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
    race: str = ""
    """How sure the first groups have to be, and no more (`race_run`)."""
    race_draws: int = 0
    """Draws of a group in a race at most; 0 for the usual number."""

    @staticmethod
    def of(spec: ScoreSpec, method: str, **others: Any) -> Settings:
        """Those of a recipe's section for all groups; `others` are fields that were asked for beside."""
        own = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name in Settings.__dataclass_fields__}
        return Settings(**{"method": method, "groups": (), **own, **others})


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
        self.model_terms = ModelTerms(project, self.found, device, settings.seed)
        self.strangers = Strangers(project, self.found.full, self.model_terms.jobs)
        self.conditions = conditions_for(project, self.found.full, settings.given)
        self._weighting, self.schedule = weighting, project.model(self.found.full).schedule
        self.warnings = counterfactuals.warnings(project, self.found)
        self.method, self.weighting = settings.method, settings.weighting
        self.unit = answers.unit_of(weighting, unbiased=not settings.grid.startswith(grids.STRIDE))
        self.images = self.calibrated = 0

    # -- what is scored ----------------------------------------------------------------------------

    @cached_property
    def grid_spec(self) -> dict[str, Any]:
        """The grid; the sizes of the terms are learnt first where its strata follow them."""
        s, layout = self.settings, None
        if grids.needs_edges(s.grid):
            layout = term_sizes.layout(self.project, self.found.full, s.timesteps, self.model_terms.jobs)
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
        """How the scores were computed, in one line."""
        s, grid = self.settings, self.reading.grid
        n = grid.timesteps.shape[1]
        ranked = f", {self.ranking.words}" if self.ranking.words else ""
        partial = "" if grid.unbiased else ", a partial sum"
        draws = (
            f"{plural(n, 'timestep', 'timesteps')} ({s.grid}{partial}) x {plural(s.draws, 'draw', 'draws')}"
        )
        return (
            f"{s.method}{self._seeds()}, weighting {s.weighting} ({self.reading.unit}), {draws}, "
            f"seed {s.seed}{ranked}{self._how()}."
        )

    def _how(self) -> str:
        """In which precision, where that is not float32."""
        how = self.model_terms.known_compute()
        dtype = str(how.get("dtype", "float32"))
        compiled = ", compiled" if how.get("compiled") else ""
        return f", in {precision.WORDS[dtype]}{compiled}" if dtype != "float32" or compiled else ""

    def _seeds(self) -> str:
        seeds = self.found.seeds
        return f" (mean of seeds {', '.join(map(str, seeds))})" if len(seeds) > 1 else ""

    def announce(self) -> None:
        """Warn of failed checks and say which groups have no model; in detail, which models there are."""
        for name, record in self.found.records().items():
            made = record.provenance.get("what") or name
            self.project.console.detail(f"{made} [{record.key[:SHORT_KEY]}]: in the store")
        for text in self.warnings:
            self.project.console.warn(text)
        if self.found.lacking:
            names = [what.name for what in self.found.lacking]
            command = self.found.kind.command(names[:1])
            self.project.console.say(
                f"not scored, as there is no model without them: {few(names)} ({command})"
            )

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
        if not self.images:
            return "no image was scored"
        scored = plural(self.images, "image", "images")
        if self.calibrated:
            scored += f" ({self.calibrated:,} more forwards calibrated the verdicts, once for all images)"
        forwards, cached = self.model_terms.forwards, self.model_terms.cached
        if forwards == 0:
            ran = "" if self.calibrated else ", no model was run"
            return f"{scored}: every term was in the store{ran}"
        return f"{scored}: {forwards:,} network forwards, {cached:,} reused from the store"

    # -- running -----------------------------------------------------------------------------------

    def blocks(self, paths: Sequence[str]) -> Iterator[BlockResult]:
        """Score the images of `paths` in blocks; a bad file does not stop the others, nor costs anything."""
        self._expect(len(paths))
        with ExitStack() as stack:
            bar: Meter | None = None
            for start in range(0, len(paths), BLOCK):
                part = list(paths[start : start + BLOCK])
                queries, bad = load(self.project, part, self.conditions)
                if not queries:
                    yield BlockResult([], [], bad)
                    continue
                bar = bar or stack.enter_context(self._bar(len(paths) - start))
                bar.found(len(bad) * self._rows)
                yield BlockResult(self._score(queries, bar), queries, bad)

    def score(self, queries: Sequence[Query]) -> list[QueryResult]:
        """Results of images that are in memory already."""
        self._expect(len(queries))
        parts = [list(queries[start : start + BLOCK]) for start in range(0, len(queries), BLOCK)]
        with self._bar(len(queries)) as bar:
            return [result for part in parts for result in self._score(part, bar)]

    def _expect(self, images: int) -> None:
        """Tell how many forwards are coming, about: before the grid is known, which itself takes some."""
        s = self.settings
        rows = self.schedule.T if s.grid == grids.ALL else s.timesteps
        images += calibrating.size(self.project) if self.judges else 0
        self.model_terms.planned = float(images * rows * s.draws * len(self.found.records()))

    @property
    def _rows(self) -> int:
        """Forwards an image, less what its verdict may need beyond."""
        judging = FORWARDS if self.calibration is not None else 0
        return self.reading.grid.rows * len(self.found.records()) + judging

    def _bar(self, images: int) -> AbstractContextManager[Meter]:
        """Progress over so many images; what comes once for all is done before: the time left holds."""
        return self.project.console.progress("score", images * self._rows, unit="forward")

    def terms(self, queries: list[Query]) -> dict[str, Array]:
        """-ELBO terms [queries, draws, n] of images that this run has scored, by the models' labels."""
        return self.model_terms.of(self.grid_spec, queries)[1]

    def plan(self, paths: Sequence[str]) -> list[Step]:
        """One step a model: how many images have no terms under it yet."""
        queries, _ = load(self.project, paths, self.conditions)
        s, full = self.settings, self.found.full
        layout = score_plan.layout(self.project, full, s.grid, s.timesteps)
        open_tables = self.model_terms.tables
        tables = open_tables(grids.spec(s.grid, s.timesteps, s.draws, s.seed, layout))
        self._expect(len(paths))
        steps = precision.steps(self.project, full, self.model_terms.planned, score_plan.COMMAND)
        steps += score_plan.steps(self.project, full, s.grid, tables, queries)
        if self.judges:
            steps += score_plan.calibration(self.project, tables, open_tables, self.strangers, queries)
        return timed(steps, forward_seconds(self.project, full))

    def map_of(self, query: Query, result: QueryResult, top: int) -> bytes:
        """Per-pixel delta-ELBO maps of the first `top` groups of one image, as a PNG file."""
        from guda_cli.report.answers import maps
        from guda_cli.report.pieces.text import significant

        names = [entry.group for entry in result.scores[:top]]
        multiplier = self.reading.weighting.multiplier(self.reading.schedule)
        models = {name: tuple(model.record for model in self.found.named(name)) for name in names}
        found = self.model_terms.engine.maps(
            query, {"": (self.found.full,), **models}, self.reading.grid, multiplier
        )
        panels = [
            (f"{e.group} {significant(e.score, sign=True)}", found[e.group]) for e in result.scores[:top]
        ]
        image = maps.panel(query.pixels, panels, f"delta-ELBO a pixel, weighting {self.settings.weighting}")
        return maps.to_png(image)

    def _score(self, queries: list[Query], bar: Meter) -> list[QueryResult]:
        calibration = self.calibration  # made before anything is counted
        started, before = time.monotonic(), self.model_terms.forwards
        tables, cells = self.model_terms.of(self.grid_spec, queries, bar)
        judge = None if calibration is None else self._judge(calibration, queries, bar)
        facts = {
            "images": len(queries),
            "forwards": self.model_terms.forwards - before,
            "wall_seconds": time.monotonic() - started,
        }
        if self.remember:
            remembered.remember(self.project, self.found, self.grid_spec, tables.compute, queries, facts)
        self.images += len(queries)
        looks, full = looks_like(self.project, queries), cells[""]
        scores = answers.first_scores(self.reading, cells, self.found)
        scores = self._refined(queries, scores, judge, bar)
        groups = list(self.found.groups)
        return answers.assemble(self.reading, queries, full, groups, scores, looks, judge, self.ranking)

    def _judge(self, calibration: Calibration, queries: Sequence[Query], bar: Meter) -> answers.Judge:
        """With which queries are unlike the training data."""
        before = self.strangers.forwards
        p = self.strangers.p_values(queries)
        fresh = self.strangers.forwards - before
        self.model_terms.forwards += fresh
        self.model_terms.cached += FORWARDS * len({query.digest for query in queries}) - fresh
        bar.advance(fresh)
        bar.found(FORWARDS * len(queries) - fresh)
        return answers.Judge(calibration, self.strangers.strange(p), np.ones(len(queries), dtype=np.bool_))

    def _refined(
        self, queries: Sequence[Query], scores: Scores, judge: answers.Judge | None, bar: Meter
    ) -> Scores:
        """With more draws where the verdict hangs in the balance, and where the user wants to be surer.

        For verdicts only on strata that follow the terms: who asks for every timestep knows what it costs.
        """
        s, more = self.settings, self._more(queries, bar)
        if s.until:
            wanted = refining.until(s.until, lambda now: self.ranking.values(now, self.calibration))
            scores = refine(scores, wanted, more, max(MOST, s.most_draws))
        if judge is not None and "edges" in self.grid_spec:
            pending = refining.in_the_balance(judge.calibration, answers.LEVEL, judge.strange)
            scores = refine(scores, pending, more, s.most_draws)
        return scores

    @cached_property
    def ranking(self) -> Ranking:
        """By what groups are ranked."""
        counts, calibrated = self.project.data.counts, self.calibration is not None
        return choose(self.settings.rank, list(self.found.groups), counts, calibrated=calibrated)

    def _more(self, queries: Sequence[Query], bar: Meter) -> More:
        """Scores of one group for some of the queries from more draws; the tables take what is computed."""
        groups = list(self.found.groups)

        def more(j: int, rows: Sequence[int], draws: int) -> Estimate:
            grid_spec, chosen = grids.with_draws(self.grid_spec, draws), [queries[i] for i in rows]
            reading, records = self._reading(grid_spec), self.found.records_of(groups[j])
            bar.total += len(chosen) * reading.grid.rows * len(records)
            cells = self.model_terms.of(grid_spec, chosen, bar, records)[1]
            return answers.score_of(reading, cells[""], self.found.mean_of(groups[j], cells))

        return more

    @cached_property
    def calibration(self) -> Calibration | None:
        """What scores are compared with; the calibration images are scored first, block by block."""
        known = calibrating.images(self.project) if self.judges else None
        if known is None:
            return None
        grid_spec, queries = calibrating.grid_of(self.grid_spec), known.queries
        reading, before = self._reading(grid_spec), self.model_terms.forwards
        total = len(queries) * reading.grid.rows * len(self.found.records())
        parts = []
        with self.project.console.progress("calibrate", total, unit="forward") as bar:
            for start in range(0, len(queries), BLOCK):
                part = queries[start : start + BLOCK]
                parts.append(self.model_terms.of(grid_spec, part, bar)[1])
        strange = self.strangers.strange(self.strangers.p_values(queries))
        self.calibrated = self.model_terms.forwards - before + self.strangers.forwards
        self.model_terms.forwards = before
        cells = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return calibrating.calibrate(reading, cells, self.found, known, strange)
