"""`guda check`: how far unlearned models are from retrained ones, over images drawn from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from guda_cli.attribution import delta_elbo, distance
from guda_cli.attribution.distance import FULL, UNLEARNED, Distances
from guda_cli.data.images import pixels_digest
from guda_cli.data.queries import Query
from guda_cli.diffusion.schedule import Array
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.models import drawing
from guda_cli.workflow.project.plan import CACHED, TO_DO, Step, forward_seconds, timed
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring.counterfactual_run import ScoreRun, Settings
from guda_cli.workflow.scoring.run import BLOCK

LEAST = 2
"""Images a model: with fewer there is no error."""


class DistanceRun:
    """The model without one group, unlearned and retrained, beside the full model.

    MissingError where one is not there. Drawings and terms are kept in the store, so that it goes on where it
    was interrupted.
    """

    def __init__(self, project: Project, what: Removal, images: int, device: str) -> None:
        self.project, self.what, self.images, self.device = project, what, images, device
        spec = project.recipe.score
        asked = Settings(
            "guda", (what.typed,), spec.weighting, spec.grid, spec.timesteps, spec.draws, spec.seed
        )
        self.runs = [
            ScoreRun(project, replace(asked, method=method), device, remember=False)
            for method in ("guda", "logo")
        ]
        self.full = self.runs[0].found.full
        guda, logo = (run.found.named(what.name) for run in self.runs)
        self.retrained = tuple(model.label for model in logo)
        self.models: dict[str, ActionRecord] = {FULL: self.full, UNLEARNED: guda[0].record}
        self.models |= {model.label: model.record for model in logo}

    @property
    def unit(self) -> str:
        """Of the distances."""
        return self.runs[0].unit

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the retrained models."""
        return self.runs[1].found.seeds

    def distances(self) -> Distances:
        """What is not in the store is drawn and scored."""
        queries = {name: self._drawn(record) for name, record in self.models.items()}
        return distance.compare(self._losses(queries), self.retrained)

    def plan(self) -> list[Step]:
        """Drawing from each model, and scoring what is drawn."""
        actions = [drawing.action(self.full, record, self.settings) for record in self.models.values()]
        steps = []
        for name, action in zip(self.models, actions, strict=True):
            state = CACHED if self.project.store.lookup(action.key) else TO_DO
            what = f"{self.images} images of the {self._called(name)}"
            steps.append(Step(what, state, "", action.key, action.forwards, command="guda check"))
        spec = self.project.recipe.score
        cells = self.images * len(self.models) ** 2 * spec.timesteps * spec.draws
        why = "at most: less what is in the store"
        steps.append(Step("terms of these images", TO_DO, why, None, float(cells), command="guda check"))
        return timed(steps, forward_seconds(self.project, self.full))

    def _called(self, name: str) -> str:
        return f"{name} model" if name in (FULL, UNLEARNED) else f"retrained model without {name}"

    @property
    def settings(self) -> drawing.Settings:
        """How all models are drawn from: alike, without guidance, for that changes what is drawn.

        Models with classes are asked for those alone that the retrained ones know.
        """
        project, spec = self.project, self.project.recipe.sample
        plain = drawing.Settings(self.images, spec.sampler, spec.steps, spec.seed)
        if project.family.prompts:
            return drawing.with_prompts(project, plain, None, 1.0)
        classes = project.classes(self.full)
        known = [name for name in classes.names if name not in self.what.groups] if classes else None
        return drawing.settings_for(classes, plain, known, None)

    def _drawn(self, record: ActionRecord) -> list[Query]:
        settings, jobs = self.settings, self.runs[0].model_terms.jobs
        found = drawing.sample(self.project, self.full, record, settings, self.device, jobs)
        out = []
        for i, pixels in enumerate(drawing.pixels_of(self.project, found)):
            told = settings.condition_of(i)
            name, digest = f"{record.key[:12]}/{i:05d}", pixels_digest(pixels)
            if settings.prompts:
                out.append(Query(name, pixels, digest, prompts=(told or "",)))
            else:
                out.append(Query(name, pixels, digest, told))
        return out

    def _losses(self, queries: Mapping[str, list[Query]]) -> dict[str, dict[str, Array]]:
        found: dict[str, dict[str, Array]] = {name: {} for name in self.models}
        with self.project.console.progress(f"compare {self.what.short}", len(queries), unit="model") as bar:
            for source, drawn in queries.items():
                for run in self.runs:
                    for model, values in self._under(run, drawn).items():
                        found[model][source] = values
                bar.advance(1)
        return found

    def _under(self, run: ScoreRun, queries: list[Query]) -> dict[str, Array]:
        """Losses [n] under the models of one run, by what they are here."""
        import numpy as np

        named = {"": FULL, **{model.label: model.label for model in run.found.models()}}
        if run is self.runs[0]:
            named = {label: FULL if label == "" else UNLEARNED for label in named}
        parts: dict[str, list[Array]] = {}
        multiplier = run.reading.weighting.multiplier(run.reading.schedule)
        for start in range(0, len(queries), BLOCK):
            for label, terms in run.terms(queries[start : start + BLOCK]).items():
                value = delta_elbo.estimate(terms, run.reading.grid, multiplier).value
                parts.setdefault(named[label], []).append(value)
        return {name: np.concatenate(values) for name, values in parts.items()}
