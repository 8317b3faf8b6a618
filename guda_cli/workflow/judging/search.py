"""The search itself: the oracle of a few groups, then one trial after the other. Resumable step by step."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guda_cli.attribution.oracle_seeds import mean_oracle, reliability
from guda_cli.data.images import pixels_digest
from guda_cli.data.queries import Query, load_queries
from guda_cli.diffusion import weighting as weightings
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError, UsageError
from guda_cli.report.answers.content import score_table
from guda_cli.sections import Recipe
from guda_cli.unlearning import catalog
from guda_cli.workflow.judging.candidates import with_settings
from guda_cli.workflow.judging.held_out import note_tuned
from guda_cli.workflow.judging.verdict import Verdict, choose, judge
from guda_cli.workflow.keys import removal
from guda_cli.workflow.keys.operations import TRAIN, UNLEARN
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.models import drawing
from guda_cli.workflow.models.jobs import LazyJobs, Task
from guda_cli.workflow.models.making import run_all
from guda_cli.workflow.project.counterfactual_kinds import GUDA, LOGO
from guda_cli.workflow.project.plan import Planner, Step
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import counterfactuals
from guda_cli.workflow.scoring.conditions import Given, conditions_for
from guda_cli.workflow.scoring.counterfactual_run import ScoreRun, Settings

SEED_STEP = 2  # the oracle's default seed lies this far from the full model's


@dataclass(frozen=True)
class Trial:
    """One set of settings tried: what it costs for all groups of the data, and how it was judged."""

    settings: Mapping[str, Any]
    forwards: float
    seconds: float
    verdict: Verdict


@dataclass(frozen=True)
class Outcome:
    """The trials in the order tried, which was chosen, what it changes in the recipe, and the recipe so."""

    groups: tuple[str, ...]
    seeds: tuple[int, ...]
    queries: int
    weighting: str
    reliability: float | None
    trials: list[Trial]
    chosen: int
    changes: Mapping[str, Any]
    recipe: Recipe


class Tuner:
    """Tunes one project on the oracle of `groups`."""

    def __init__(
        self, project: Project, device: str, groups: Sequence[str], seeds: Sequence[int], weighting: str
    ) -> None:
        self.project, self.device, self.weighting = project, device, weighting
        weightings.parse(weighting)
        self.full = project.require_full()
        self.removals = removal.of_groups(groups, project.data.counts)
        self.names = tuple(what.name for what in self.removals)
        if len(project.data.counts) < 2:
            raise DataError("there is one group only: there is nothing to hold out")
        self.seeds = tuple(seeds) or self._seeds()
        self.jobs = self._jobs(project)

    def _seeds(self) -> tuple[int, ...]:
        """Seeds under which the store has the oracle of all these groups already, or one new seed."""
        own = self.project.recipe.train.seed
        for seed in counterfactuals.oracle_seeds(self.project, self.full, self.removals):
            keys = [self._oracle_key(what, seed) for what in self.removals]
            if seed != own and all(self.project.store.lookup(key) for key in keys):
                return (seed,)
        return (own + SEED_STEP,)

    def _oracle_key(self, what: Removal, seed: int) -> str:
        return LOGO.action(self.project, self.full, what, seed).key

    def _jobs(self, project: Project) -> LazyJobs:
        from guda_cli.workflow.project.compute import remember_compute

        return LazyJobs(project, lambda: remember_compute(project, self.device))

    def check(self, recipe: Recipe) -> None:
        """RecipeError for unlearning settings that the full model does not admit."""
        catalog.check(recipe.unlearn, self.project.model(self.full).traits(recipe))

    # -- images ------------------------------------------------------------------------------------

    def images(self, paths: Sequence[str], count: int) -> list[Query]:
        """The queries: those of `paths`, or `count` images drawn from the full model."""
        if paths:
            channels, size, _ = self.project.data.shape
            queries, bad = load_queries(
                paths, size, channels, conditions_for(self.project, self.full, Given())
            )
            for name, reason in bad:
                self.project.console.warn(f"{name}: {reason}")
        else:
            queries = self._samples(count)
        unique = list({query.digest: query for query in queries}.values())
        if len(unique) < 8:
            raise UsageError(
                f"{len(unique)} different images are too few to tune on", why="half of them are held back"
            )
        return unique

    def _samples(self, count: int) -> list[Query]:
        from PIL import Image

        spec = self.project.recipe.sample
        settings = drawing.Settings(count, spec.sampler, spec.steps, spec.seed)
        settings = drawing.conditioned(self.project, self.full, settings)
        record = drawing.sample(self.project, self.full, self.full, settings, self.device)
        out = []
        for i, data in enumerate(drawing.images(self.project, record, settings)):
            pixels = np.asarray(Image.open(io.BytesIO(data)))
            pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            pixels = np.ascontiguousarray(pixels)
            told = settings.condition_of(i)
            prompts = (told or "",) if settings.prompts else ()
            digest = pixels_digest(pixels)
            out.append(Query(f"sample {i:05d}", pixels, digest, None if prompts else told, prompts))
        return out

    # -- running -----------------------------------------------------------------------------------

    def plan(self, candidates: Sequence[Mapping[str, Any]]) -> list[Step]:
        """The oracle's models and each trial's unlearned ones."""
        steps = []
        for seed in self.seeds:
            steps += Planner(self.project).models(LOGO.method, self.removals, seed)
        for settings in candidates:
            planner = Planner(self._variant(settings))
            words = describe(settings)
            found = planner.models(GUDA.method, self.removals)
            steps += [dataclasses.replace(step, what=f"{step.what}: {words}") for step in found]
        return steps

    def oracle(self, queries: Sequence[Query]) -> list[Array]:
        """Train what the oracle lacks; its scores [queries, groups], one matrix a seed."""
        note_tuned(self.project, self.full, self.names)
        own = self.project.recipe.train.seed
        if own in self.seeds and self.project.model(self.full).trained:
            self.project.console.warn(
                f"seed {own} is the full model's own: its oracle flatters what starts there"
            )
        tasks = [Task(TRAIN, what, seed) for seed in self.seeds for what in self.removals]
        run_all(self.jobs, tasks, self.full, self.device, verb="train")
        return [self._scores(self.project, LOGO.method, queries, (seed,)) for seed in self.seeds]

    def trial(self, settings: Mapping[str, Any], queries: Sequence[Query]) -> tuple[Array, float, float]:
        """Scores [queries, groups] with these settings; forward-equivalents and seconds for all groups."""
        variant = self._variant(settings)
        tasks = [Task(UNLEARN, what) for what in self.removals]
        records = run_all(self._jobs(variant), tasks, self.full, self.device, verb="unlearn")
        share = len(self.project.data.counts) / len(records)
        forwards = sum(float(record.provenance["forwards"]) for record in records) * share
        seconds = sum(float(record.provenance["wall_seconds"]) for record in records) * share
        return self._scores(variant, GUDA.method, queries, ()), forwards, seconds

    def _variant(self, settings: Mapping[str, Any]) -> Project:
        recipe = with_settings(self.project.recipe, settings)
        return self.project.of_recipe(recipe)

    def _scores(
        self, project: Project, method: str, queries: Sequence[Query], seeds: tuple[int, ...]
    ) -> Array:
        s = project.recipe.score
        settings = Settings(
            method, self.names, self.weighting, s.grid, s.timesteps, s.draws, s.seed, oracle_seeds=seeds
        )
        run = ScoreRun(project, settings, self.device, remember=False)
        return score_table(run.score(queries), self.names)


def describe(settings: Mapping[str, Any]) -> str:
    """`steps 20, lr 0.001`, or `the recipe's`."""
    parts = [f"{key.partition('.')[2]} {value}" for key, value in settings.items()]
    return ", ".join(parts) or "the recipe's own"


def tune(
    tuner: Tuner, candidates: Sequence[Mapping[str, Any]], queries: Sequence[Query], seed: int
) -> Outcome:
    """Try every candidate and choose the cheapest, gentlest near the best on one half of the queries."""
    project = tuner.project
    matrices = tuner.oracle(queries)
    truth = mean_oracle(matrices)
    columns, costs, seconds = [], [], []
    with project.console.progress("tune", len(candidates), unit="trial") as bar:
        for settings in candidates:
            scores, forwards, spent = tuner.trial(settings, queries)
            columns.append(scores)
            costs.append(forwards)
            seconds.append(spent)
            bar.advance(1)
    verdicts = judge(columns, truth, seed)
    every = [full_settings(project.recipe, settings) for settings in candidates]
    chosen = choose(verdicts, costs, [strength(settings) for settings in every])
    trials = [Trial(*found) for found in zip(every, costs, seconds, verdicts, strict=True)]
    known = reliability(matrices) if len(matrices) > 1 else None
    changes = candidates[chosen]
    return Outcome(
        tuner.names, tuner.seeds, len(queries), tuner.weighting, known, trials, chosen, changes,
        with_settings(project.recipe, changes),
    )  # fmt: skip


def full_settings(recipe: Recipe, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All unlearning settings of a trial, as they decide its numbers."""
    return catalog.settings(with_settings(recipe, settings).unlearn)


def strength(settings: Mapping[str, Any]) -> float:
    """How hard a step forgets: the learning rate times the forget weight, where the operator has one."""
    weight = settings.get("forget_weight")
    return float(settings["lr"]) * (1.0 if weight is None else float(weight))


def held_out(counts: Mapping[str, int], number: int, seed: int) -> list[str]:
    """`number` seeded groups to tune on; UsageError when fewer than two would be left to report on."""
    names = sorted(counts)
    if number < 1 or len(names) - number < 2:
        raise UsageError(
            f"--held-out {number} of {len(names)} groups", why="two or more must be left to report on"
        )
    rng = np.random.Generator(np.random.PCG64([0x0E1D, seed]))
    return sorted(names[i] for i in rng.permutation(len(names))[:number])
