"""`guda score --race P%`: only as many forwards as it takes to tell which groups of an image are the first.

All groups start with a few coarse draws; those that are surely among the first, or surely not, are left at
what they have, and the others get twice as many, until the race is decided or has come to its end. Timesteps
are drawn by importance, each with a noise and its mirror (`grid.build`, "mirrored"): a good part of a
difference between models is odd in the noise and cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from guda_cli import typed_number
from guda_cli.attribution.delta_elbo import summed
from guda_cli.attribution.race import Race
from guda_cli.console import Meter
from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import UsageError
from guda_cli.phrases import plural
from guda_cli.report.answers.content import QueryResult, RaceResult
from guda_cli.store import ActionRecord
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import answers, term_sizes
from guda_cli.workflow.scoring.counterfactual_run import ScoreRun, Settings
from guda_cli.workflow.scoring.looks import looks_like
from guda_cli.workflow.scoring.ranking import AUTO, SCORE
from guda_cli.workflow.scoring.refining import Scores

TIMESTEPS = 2  # of a draw: few, so that what is clear at once costs little
FORWARDS = 2 * TIMESTEPS  # of a draw
LAYOUT = 50  # strata that timesteps are drawn from, one as often as another
FIRST = 2  # draws of every group: the fewest that have an error
MOST = 32  # draws of a group that is still in the race, where nothing else is asked for


def certainty(text: str) -> float:
    """`--race`: how sure the first groups have to be, in (0, 1); UsageError for anything else."""
    found = (typed_number.finite(text.strip().removesuffix("%")) or 0.0) / 100.0
    if not 0.0 < found < 1.0:
        raise UsageError(
            f"--race {text!r} is no share of certainty",
            why="it says how sure the first groups have to be",
            fix="--race 95%",
        )
    return found


@dataclass(eq=False)
class _Entry:
    """One image in its race: weighted terms [draws, n] without each group, as far as they are drawn."""

    query: Query
    race: Race
    terms: dict[int, Array] = field(default_factory=dict)

    def look(self) -> None:
        self.race.look(np.stack([self.terms[j] for j in np.flatnonzero(self.race.running).tolist()]))


class RaceRun(ScoreRun):
    """Scores images as far as the first `places` groups need it; no verdicts, which need all scores."""

    def __init__(self, project: Project, settings: Settings, device: str, places: int) -> None:
        if settings.rank not in (AUTO, SCORE):
            raise UsageError(
                f"--race ranks by score, not by {settings.rank}",
                why="other rankings are of scores that are drawn to the end",
                fix="--rank score",
            )
        self.level = certainty(settings.race)
        self.most = max(FIRST, settings.race_draws or MOST)
        settings = replace(settings, timesteps=TIMESTEPS, draws=FIRST, rank=SCORE, until="", most_draws=0)
        super().__init__(project, settings, device, remember=False)
        self.places = min(places, max(1, len(self.found.groups) - 1))
        self.raced: list[RaceResult] = []

    @cached_property
    def grid_spec(self) -> dict[str, Any]:
        """The first draws; the sizes of the terms, by which timesteps are drawn, are learnt first."""
        s, jobs = self.settings, self.model_terms.jobs
        layout = term_sizes.layout_for(self.project, self.found.full, s.weighting, LAYOUT, jobs)
        return grids.mirrored_spec(layout, TIMESTEPS, FIRST, s.seed)

    def describe(self) -> str:
        """How the scores were computed, in one line."""
        s, first = self.settings, "first group" if self.places == 1 else f"first {self.places} groups"
        return (
            f"{s.method}{self._seeds()}, weighting {s.weighting} ({self.unit}), a race until the {first} can"
            f" be told at {100 * self.level:.4g} %: {FIRST} to {self.most} draws of {TIMESTEPS} timesteps by"
            f" importance, each with a noise and its mirror, seed {s.seed}."
        )

    def summary(self) -> str:
        """What was computed, and how many races were decided."""
        if not self.raced:
            return super().summary()
        decided = sum(one.decided for one in self.raced)
        forwards = sum(one.forwards for one in self.raced) / (len(self.raced) * len(self.found.records()))
        return (
            f"{super().summary()}; {decided} of {plural(len(self.raced), 'race', 'races')} decided,"
            f" {forwards:.3g} forwards a model and image"
        )

    def _score(self, queries: list[Query], bar: Meter) -> list[QueryResult]:
        entries = [
            _Entry(query, Race(len(self.found.groups), self.places, 1 - self.level)) for query in queries
        ]
        draws = FIRST
        while going := [entry for entry in entries if not entry.race.decided]:
            self._draw(going, draws, bar)
            for entry in going:
                entry.look()
            if draws == self.most:
                break
            draws = min(2 * draws, self.most)
        self.images += len(queries)
        looks = looks_like(self.project, queries)
        found = [self._result(entry, look, bar) for entry, look in zip(entries, looks, strict=True)]
        self.raced += [result.race for result in found if result.race is not None]
        return found

    def _draw(self, entries: Sequence[_Entry], draws: int, bar: Meter) -> None:
        """So many draws of every group that is still in an image's race."""
        grid_spec = grids.with_draws(self.grid_spec, draws)
        for j, what in enumerate(self.found.groups):
            chosen = [entry for entry in entries if entry.race.running[j]]
            if chosen:
                records = {name: one for name, one in self.found.records_of(what).items() if name}
                cells = self._cells(grid_spec, [entry.query for entry in chosen], records, bar)
                for entry, own in zip(chosen, self.found.mean_of(what, cells), strict=True):
                    entry.terms[j] = self._weighted(own, grid_spec)

    def _cells(
        self,
        grid_spec: Mapping[str, Any],
        queries: list[Query],
        records: Mapping[str, ActionRecord],
        bar: Meter,
    ) -> dict[str, Array]:
        if grid_spec["draws"] > FIRST:  # the bar counts on the first draws alone
            bar.total += len(queries) * len(records) * self._reading(grid_spec).grid.rows
        return self.model_terms.of(grid_spec, queries, bar, records)[1]

    def _weighted(self, terms: Array, grid_spec: Mapping[str, Any]) -> Array:
        reading = self._reading(grid_spec)
        multiplier = reading.weighting.multiplier(reading.schedule)
        return reading.grid.weighted(terms, multiplier)

    def _result(self, entry: _Entry, look: str | None, bar: Meter) -> QueryResult:
        """The answer of one image: the groups that lead, then the others, each with the draws it had."""
        groups, race = list(self.found.groups), entry.race
        counts = [len(entry.terms[j]) for j in range(len(groups))]
        grid_spec = grids.with_draws(self.grid_spec, max(counts))
        full = self._cells(grid_spec, [entry.query], {"": self.found.full}, bar)[""]
        mine = self._weighted(full[0], grid_spec)
        scores = Scores.of(
            [summed((entry.terms[j] - mine[:count])[None]) for j, count in enumerate(counts)], FIRST
        )
        scores = replace(scores, draws=np.array([counts], dtype=np.int64))
        reading = self._reading(grid_spec)
        [found] = answers.assemble(reading, [entry.query], full, groups, scores, [look], None, self.ranking)
        first = {groups[j].name for j in np.flatnonzero(race.leading).tolist()}
        ordered = sorted(found.scores, key=lambda score: score.group not in first)
        models = sum(count * len(self.found.groups[what]) for count, what in zip(counts, groups, strict=True))
        forwards = (models + max(counts)) * FORWARDS * len(entry.query.conditions)
        told = RaceResult(self.places, self.level, race.decided and len(first) == self.places, forwards)
        return replace(found, scores=tuple(ordered), confidence=None, race=told)
