"""What a run of `guda score` would do. Runs no network, and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.phrases import plural
from guda_cli.store import ActionRecord
from guda_cli.workflow.project.plan import CACHED, TO_DO, Step
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import calibrating, term_sizes
from guda_cli.workflow.scoring.elbo_tables import Tables
from guda_cli.workflow.scoring.strangers import FORWARDS, Strangers

COMMAND = "guda score"
Open = Callable[[Mapping[str, Any]], Tables]
"""The tables of all models on a grid."""


def layout(project: Project, full: ActionRecord, kind: str, timesteps: int) -> grids.Layout | None:
    """The layout of the strata as it will be; none as long as the sizes of the terms are not known."""
    return term_sizes.known_layout(project, full, timesteps) if grids.needs_edges(kind) else None


def steps(
    project: Project, full: ActionRecord, kind: str, tables: Tables, queries: Sequence[Query]
) -> list[Step]:
    """Learning the sizes of the terms where the grid `kind` needs them, then one step a model of `tables`."""
    digests = [query.digest for query in queries]
    found = [_sizes(project, full)] if grids.needs_edges(kind) else []
    for name, missing in tables.missing(digests).items():
        what = f"terms under the {'full model' if not name else 'model without ' + name}"
        of = plural(len(set(digests)), "image", "images")
        why = f"{math.ceil(missing / tables.grid.rows)} of {of}" if missing else ""
        found.append(_step(what, missing, why, tables.keys[name]))
    return found


def calibration(
    project: Project, tables: Tables, open_tables: Open, strangers: Strangers, queries: Sequence[Query]
) -> list[Step]:
    """Scoring the calibration images on the grid of `tables`, and looking at the training images' features.

    About, as long as the images have not been chosen.
    """
    wanted = calibrating.size(project)
    if not wanted:
        return []
    known, mine = calibrating.known(project), open_tables(calibrating.grid_of(tables.grid.spec))
    if known is None:
        missing = wanted * mine.grid.rows * len(mine.records)
    else:
        missing = sum(mine.missing([query.digest for query in known.queries]).values())
    looked, new = strangers.action, strangers.missing(queries)
    why = plural(new, "image", "images") if new else ""
    return [
        _step(
            "calibrating the verdicts", missing, f"{plural(wanted, 'image', 'images')} of known groups", ""
        ),
        _step(looked.what, 0.0 if strangers.known else looked.forwards, "", looked.key),
        _step("comparing images with them", new * FORWARDS, why, ""),
    ]


def _sizes(project: Project, full: ActionRecord) -> Step:
    action = term_sizes.action(project, full)
    known = project.store.lookup(action.key) is not None
    return _step(action.what, 0.0 if known else action.forwards, "", action.key)


def _step(what: str, forwards: float, why: str, key: str) -> Step:
    return Step(what, TO_DO if forwards else CACHED, why, key, float(forwards), command=COMMAND)
