"""`score.dtype: auto`: the fastest form of forwards that is exact enough, measured once a model and device.

The full model and one that it is compared with score a seeded sample of training images in every form. A form
is sound where it moves the scores, as root mean square, by less than a tenth of their own standard error.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from guda_cli.attribution.aggregate import subset
from guda_cli.attribution.delta_elbo import Estimate
from guda_cli.data.images import pixels_digests
from guda_cli.data.queries import Query
from guda_cli.diffusion import compiled as compiling
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion import weighting as weightings
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError
from guda_cli.jsonable import canonical
from guda_cli.store import ActionRecord
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.models.loaded import Models
from guda_cli.workflow.project import precision
from guda_cli.workflow.project.compute import Compute, Form
from guda_cli.workflow.project.precision import Decision, Measured
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.scoring import term_sizes
from guda_cli.workflow.scoring.answers import Reading, score_of
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals
from guda_cli.workflow.scoring.terms import Engine
from guda_cli.workflow.scoring.training_queries import training_queries


def form(project: Project, found: Counterfactuals, compute: Compute, forwards: float, jobs: LazyJobs) -> Form:
    """How the models of `found` are scored on this device in a run of so many `forwards`.

    What was decided before stays; what is measured must be worth it to the run, and leaves its networks with
    `jobs`. On a CPU, which has no fast half precision, it is float32; so it is in a store that has tables in
    float32 of this device from before there was a choice.
    """
    kind, full = compute.device.type, found.full
    if kind == "cpu":
        return Form()
    known = precision.known(project, full, kind)
    other = next((model.record for model in found.models()), None)
    if project.store.read_only or other is None:
        return taken(known)
    if known is None:
        if precision.scored_before(project, full, kind):
            return taken(known)
        project.store.set_document(precision.ASKED, {"auto": True})
    sample = Sample(project, full, other, compute)
    if known is None and forwards > precision.WORTH * sample.forwards:
        known = decide(sample, [Form(dtype) for dtype in offered(compute.device)])
    if known is not None and precision.compiling_pays(known, forwards):
        known = decide(sample, [sample.compiled(known.taken)], known)
    if sample.loaded:
        jobs.adopt(sample.models)
    return taken(known)


def taken(known: Decision | None) -> Form:
    """The form that was decided on; the exact one where none was."""
    return Form() if known is None else known.taken


def offered(device: torch.device) -> tuple[str, ...]:
    """The precisions of a device, from the most exact on."""
    tried = precision.TRIED.get(device.type, precision.ELSEWHERE)
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return tuple(dtype for dtype in tried if dtype != "bfloat16")
    return tried


def decide(sample: Sample, forms: list[Form], before: Decision | None = None) -> Decision:
    """The fastest sound form of `forms` and of those measured `before`; kept in the store."""
    project, kind = sample.project, sample.compute.device.type
    action = precision.action(project, sample.full, kind, compiled=before is not None)

    def make() -> Made:
        project.console.say("measuring how exact forwards must be, once for this model and device")
        measured = [*(before.measured if before else ()), *sample.measured(forms)]
        best = precision.fastest(measured)
        found = Decision(Form(best.dtype, best.compiled), kind, tuple(measured))
        project.console.say(f"scores are computed in {found.words}")
        return Made(
            {precision.OUTPUT: canonical(found.to_dict())}, {"images": precision.IMAGES, "on": sample.on}
        )

    project.ensure(Job(action, make))
    known = precision.known(project, sample.full, kind)
    assert known is not None
    return known


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


class Sample:
    """A few training images under the full model and another."""

    def __init__(self, project: Project, full: ActionRecord, other: ActionRecord, compute: Compute) -> None:
        self.project, self.full, self.other = project, full, other
        self.compute = replace(compute, form=Form())
        self.loaded = False

    @property
    def forwards(self) -> float:
        """What measuring costs."""
        return precision.sample_forwards(self.project, len(offered(self.compute.device)))

    @property
    def on(self) -> str:
        """The device's name."""
        device = self.compute.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    @cached_property
    def models(self) -> Models:
        """The networks."""
        self.loaded = True
        return self._jobs.models(self.full)

    @cached_property
    def _jobs(self) -> LazyJobs:
        return LazyJobs(self.project, lambda: self.compute)

    def compiled(self, form: Form) -> Form:
        """The same, compiled."""
        return form._replace(compiled=compiling.way(self.models.network))

    def measured(self, forms: Sequence[Form]) -> list[Measured]:
        """How far each moves the scores, and its seconds a forward; what the device cannot do has neither."""
        return [self._measured(form) for form in forms]

    def _measured(self, form: Form) -> Measured:
        exact, seconds = self._exact
        if form == self._reference:
            return Measured(form.dtype, form.compiled, 0.0, _rounded(seconds))
        try:
            scores, seconds = self._scores(form)
        except (DataError, RuntimeError):  # it overflows, or there is no such form, or no compiler
            return Measured(form.dtype, form.compiled)
        off = np.sqrt(np.mean(((scores.value - exact.value) / exact.se) ** 2))
        return Measured(form.dtype, form.compiled, _rounded(off), _rounded(seconds))

    @property
    def _reference(self) -> Form:
        return Form(offered(self.compute.device)[0])

    @cached_property
    def _exact(self) -> tuple[Estimate, float]:
        return self._scores(self._reference)

    def _scores(self, form: Form) -> tuple[Estimate, float]:
        """Scores of the sample in a form, and seconds a forward."""
        reading, best = self._reading, math.inf
        engine = Engine(self.models, int(reading.grid.spec["seed"]), replace(self.compute, form=form))
        terms: dict[str, Array] = {}
        for _ in range(precision.TIMES):
            for name, record in (("full", self.full), ("other", self.other)):
                started = time.perf_counter()
                terms[name] = engine.terms(record, self._queries, reading.grid)
                best = min(best, time.perf_counter() - started)
        return score_of(reading, terms["full"], terms["other"]), best / terms["full"].size

    @cached_property
    def _reading(self) -> Reading:
        """As the recipe scores; sizes of terms that are not known yet are learnt, and not kept."""
        project, spec, layout = self.project, self.project.recipe.score, None
        if grids.needs_edges(spec.grid):
            layout = term_sizes.layout_for_now(project, self.full, spec.timesteps, self._jobs)
        schedule = project.model(self.full).schedule
        grid = grids.build(grids.spec(spec.grid, spec.timesteps, spec.draws, spec.seed, layout), schedule.T)
        return Reading(grid, schedule, weightings.parse(spec.weighting), dict(project.data.counts))

    @cached_property
    def _queries(self) -> list[Query]:
        data = self.project.dataset()
        every = pixels_digests(data.images)
        chosen = subset(np.ones((len(data), 1), dtype=np.bool_), precision.IMAGES, 1, every)
        return training_queries(self.project, chosen.tolist())
