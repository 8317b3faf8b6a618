"""How large the terms of the ELBO are at each timestep, learnt on training images: what strata follow.

Kept in the store by the full model. The layout made of it stands in the key of every table on `strata`.
"""

from __future__ import annotations

import json

import numpy as np

from guda_cli.attribution.aggregate import subset
from guda_cli.data.images import pixels_digests
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion import strata
from guda_cli.diffusion import weighting as weightings
from guda_cli.diffusion.grid import Layout
from guda_cli.diffusion.schedule import Array, Schedule
from guda_cli.jsonable import canonical
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import TERM_SIZES, Action, model_blobs
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.scoring.training_queries import training_queries

IMAGES = 16
# Shares of the strata that are laid out for the recipe's own weighting and for the ELBO; the rest is even,
# for all other weightings.
OWN, ELBO = 0.55, 0.15


def action(project: Project, full: ActionRecord) -> Action:
    """Learning the sizes of the full model's terms."""
    params = {"images": IMAGES, "probes": strata.PROBES, "seed": 0}
    inputs = {"dataset": project.data.blob, **model_blobs(full)}
    return Action(TERM_SIZES, params, inputs, "sizes of the terms", forwards=float(IMAGES * strata.PROBES))


def known_layout(project: Project, full: ActionRecord, timesteps: int) -> Layout | None:
    """The layout of `timesteps` strata where the sizes are in the store; runs nothing."""
    record = project.store.lookup(action(project, full).key)
    return None if record is None else _layout(project, full, project.read(record, "sizes"), timesteps)


def layout(project: Project, full: ActionRecord, timesteps: int, jobs: LazyJobs) -> Layout:
    """The layout of `timesteps` strata (`strata.edges`), the sizes learnt first where they are not known.

    In a store that cannot be written they are learnt each time.
    """
    return _layout(project, full, _learnt(project, full, jobs), timesteps)


def layout_for(
    project: Project, full: ActionRecord, weighting: str, timesteps: int, jobs: LazyJobs
) -> Layout:
    """The layout of `timesteps` strata for one weighting alone (`strata.by_size`); see `layout`."""
    schedule, errors = _errors(project, full, _learnt(project, full, jobs))
    return strata.by_size(schedule, _sizes(schedule, weighting, errors), timesteps)


def _learnt(project: Project, full: ActionRecord, jobs: LazyJobs) -> bytes:
    job = Job(action(project, full), lambda: _made(project, full, jobs))
    if project.store.read_only and project.store.lookup(job.action.key) is None:
        return job.make().outputs["sizes"]
    return project.read(project.ensure(job), "sizes")


def _errors(project: Project, full: ActionRecord, data: bytes) -> tuple[Schedule, Array]:
    """The forward process, and the sizes [T + 1] of the full model's unweighted errors."""
    schedule, found = project.model(full).schedule, json.loads(data)
    return schedule, strata.between(schedule, np.array(found["timesteps"]), np.array(found["errors"]))


def layout_for_now(project: Project, full: ActionRecord, timesteps: int, jobs: LazyJobs) -> Layout:
    """The same without a trace in the store: for who is asked while the sizes are being learnt."""
    return known_layout(project, full, timesteps) or _layout(
        project, full, _made(project, full, jobs).outputs["sizes"], timesteps
    )


def _layout(project: Project, full: ActionRecord, data: bytes, timesteps: int) -> Layout:
    schedule, errors = _errors(project, full, data)
    own = project.recipe.score.weighting
    parts = [(OWN, _sizes(schedule, own, errors)), (ELBO, _sizes(schedule, weightings.ELBO, errors))]
    return strata.edges(schedule, parts, timesteps)


def _sizes(schedule: Schedule, weighting: str, errors: Array) -> Array:
    """Sizes [T + 1] of the terms under a weighting; 0 where a weight is infinite, which stands alone."""
    weight = np.where(np.isfinite(schedule.elbo_weight), schedule.elbo_weight, 0.0)
    return np.asarray(weightings.parse(weighting).multiplier(schedule) * weight * errors)


def _made(project: Project, full: ActionRecord, jobs: LazyJobs) -> Made:
    """Root mean squares over images of the squared errors of the full model's noise, at probed timesteps."""
    from guda_cli.workflow.scoring.terms import Engine

    schedule, data = project.model(full).schedule, project.dataset()
    at = strata.probes(schedule)
    grid = grids.every(at, 1, {}, unbiased=False)
    every = pixels_digests(data.images)
    chosen = subset(np.ones((len(data), 1), dtype=np.bool_), IMAGES, 0, every)
    engine = Engine(jobs.models(full), 0, jobs.compute)
    terms = engine.terms(full, training_queries(project, chosen.tolist()), grid)[:, 0]
    weight = np.where(np.isfinite(schedule.elbo_weight), schedule.elbo_weight, 1.0)[at]
    errors = np.sqrt(np.mean((terms / weight) ** 2, axis=0))
    found = {"timesteps": at.tolist(), "errors": [float(f"{value:.3g}") for value in errors]}
    return Made({"sizes": canonical(found)}, {"images": len(chosen)})
