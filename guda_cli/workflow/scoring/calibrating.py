"""Verdicts of a project's models: which images they are calibrated on, and what is said of it in reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from guda_cli.attribution import calibration as calibrations
from guda_cli.attribution.aggregate import evenly
from guda_cli.attribution.calibration import Calibration
from guda_cli.data.dataset import Mask
from guda_cli.data.images import pixels_digests
from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.diffusion.schedule import Array
from guda_cli.jsonable import canonical
from guda_cli.workflow.keys.operations import CALIBRATION, Action
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.project import Job, Made, Project
from guda_cli.workflow.scoring import remembered
from guda_cli.workflow.scoring.answers import LEVEL, Reading, scores_of
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals
from guda_cli.workflow.scoring.training_queries import queries_of

DRAWS = 2  # at most: more draws of a query make its verdict surer, not the calibration dearer


@dataclass(frozen=True, eq=False)
class Images:
    """The images that verdicts are calibrated on, and the groups of each."""

    queries: list[Query]
    groups: list[frozenset[str]]

    def members(self, removals: Iterable[Removal]) -> Mask:
        """Whether each image [n] would be taken away by each removal [G]."""
        return np.array([[bool(own & {*what.groups}) for what in removals] for own in self.groups])


def size(project: Project) -> int:
    """How many images verdicts are calibrated on, about; 0 where they are too few for a verdict."""
    there = project.data.held_out_images if held_out(project) else project.data.images
    found = min(project.recipe.score.calibration, there)
    return found if found >= calibrations.LEAST else 0


def held_out(project: Project) -> bool:
    """Whether they are images that no training saw, as queries are: where there are enough of them."""
    return min(project.recipe.score.calibration, project.data.held_out_images) >= calibrations.LEAST


def images(project: Project) -> Images | None:
    """`score.calibration` images, as many of each group; None where they are too few for a verdict.

    Held-out images where there are enough, else training images. The choice is seeded and goes by digests. It
    is kept in the store, so that no query reads all the data.
    """
    if not size(project):
        return None
    action = _action(project)
    job = Job(action, lambda: _made(project))
    if project.store.read_only and project.store.lookup(action.key) is None:
        return _parsed(job.make().outputs)
    record = project.ensure(job)
    return _parsed({name: project.read(record, name) for name in record.outputs})


def known(project: Project) -> Images | None:
    """The same where they have been chosen already; chooses none."""
    record = project.store.lookup(_action(project).key) if size(project) else None
    return _parsed({name: project.read(record, name) for name in record.outputs}) if record else None


def _action(project: Project) -> Action:
    told = project.family.told(project.recipe)
    params = {"images": project.recipe.score.calibration, "told": told, "seed": 0}
    data = project.data
    inputs = {"dataset": data.blob, **(data.held_out if held_out(project) else {})}
    return Action(CALIBRATION, params, inputs, "images to calibrate on")


def _parsed(made: Mapping[str, bytes]) -> Images | None:
    groups = [frozenset(names) for names in json.loads(made["groups"])]
    return Images(remembered.unpack(made["queries"]), groups) if len(groups) >= calibrations.LEAST else None


def _made(project: Project) -> Made:
    data, wanted = project.dataset(), project.recipe.score.calibration
    if held_out(project):
        data = project.held_out() or data
    every = pixels_digests(data.images)
    chosen = evenly(data.membership, wanted, every)
    owners: dict[str, set[str]] = {}  # an image that is there twice is of all its copies' groups
    for i, digest in enumerate(every):
        owners.setdefault(digest, set()).update(data.groups[j] for j in np.flatnonzero(data.membership[i]))
    queries = list({query.digest: query for query in queries_of(project, data, chosen.tolist())}.values())
    groups = [sorted(owners[query.pixels_digest]) for query in queries]
    return Made({"queries": remembered.pack(queries), "groups": canonical(groups)})


def grid_of(grid_spec: Mapping[str, Any]) -> dict[str, Any]:
    """The grid that calibration images are scored on: the queries', with DRAWS draws at most."""
    return grids.with_draws(grid_spec, min(int(grid_spec["draws"]), DRAWS))


def calibrate(
    reading: Reading, cells: Mapping[str, Array], found: Counterfactuals, known: Images, strange: Mask
) -> Calibration:
    """From terms [n, draws, n_t] of the images `known` under every model of `found`, by label.

    `strange` says which of them [n] are unlike the others.
    """
    groups = found.mean(cells)
    scores = np.stack([estimate.value for estimate in scores_of(reading, cells[""], groups).values()], axis=1)
    return Calibration(scores, known.members(groups), strange)


def facts(project: Project, found: Calibration) -> dict[str, Any]:
    """What a report says of the verdicts, the false-positive rate of this model among it."""
    rates, held = found.rates(LEVEL), held_out(project)
    known = "images held out of training, of known groups" if held else "training images of known groups"
    return {
        "description": f"{len(found)} {known}",
        "images": len(found),
        "held_out": held,
        "level": LEVEL,
        "wrong_group": round(rates.wrong, 4),
        "own_group": round(rates.own, 4),
        "unlike": round(rates.unlike, 4),
    }
