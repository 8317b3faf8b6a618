"""`guda check`: were the groups unlearned, and how far are the models from retrained ones?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli.commands.common import open_project, refuse_lost, show_plan
from guda_cli.session import GroupOption, Session, command_options
from guda_cli.tables import Column

if TYPE_CHECKING:
    from guda_cli.attribution.distance import Distances, Estimate
    from guda_cli.workflow.keys.removal import Removal
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.scoring.distance_run import DistanceRun

COLUMNS = (
    Column("group", cut=True),
    Column("check"),
    Column("unlearned", right=True, drop=3),
    Column("retrained", right=True, drop=3),
    Column("full", right=True, drop=3),
    Column("left", right=True, drop=2),
    Column("why", wrap=True, drop=1),
)


@command_options(recipe=True, device=True, dry_run=True, wait=True)
def check(
    session: Session,
    group: GroupOption = None,
    images: Annotated[int, typer.Option("-n", "--images", min=2, help="Images drawn from each model.")] = 64,
) -> None:
    """Show the checks of the full model and of unlearned ones, and how far these are from retrained ones.

    Where the store has the oracle's model without a group (`guda train --each-group --seeds 2,3`), images
    are drawn from it, from the unlearned and from the full model, and each is asked how well it explains the
    others' images. Unlearned to retrained is what is left to unlearn, full to retrained what there was, and
    retrained to retrained what chance leaves. Shown are the groups that have an unlearned model.
    """
    from guda_cli.workflow.scoring import counterfactuals
    from guda_cli.workflow.scoring.distance_run import DistanceRun

    project = open_project(session)
    found = counterfactuals.find(project, "guda", tuple(group or ()))
    for text in found.lost:
        session.console.warn(text)
    retrained = _retrained(project)
    runs = {
        what: DistanceRun(project, what, images, session.options.device) if what in retrained else None
        for what in found.groups
    }
    if session.options.dry_run:
        steps = [step for run in runs.values() if run for step in run.plan()]
        show_plan(session, steps, "plan: check")
        return
    entries = []
    for what, run in runs.items():
        record = found.groups[what][0].record
        entries.append((what, project.model(record).check, run.distances() if run else None))
    _show(session, project, [run for run in runs.values() if run], entries, images)
    refuse_lost(project)


def _retrained(project: Project) -> set[Removal]:
    """What the oracle has a model without; nothing where there is none."""
    from guda_cli.errors import MissingError
    from guda_cli.workflow.scoring import counterfactuals

    try:
        found = counterfactuals.find(project, "logo")
    except MissingError:
        return set()
    for text in found.lost:
        project.console.warn(text)
    return set(found.groups)


Entry = tuple["Removal", "dict[str, Any] | None", "Distances | None"]


def _show(
    session: Session, project: Project, runs: Sequence[DistanceRun], entries: Sequence[Entry], images: int
) -> None:
    from dataclasses import asdict

    from guda_cli.workflow.project import training_check

    trained = training_check.current(project)
    console, run = session.console, runs[0] if runs else None
    console.data(
        {
            "schema": "guda.check/1",
            "recipe": project.recipe.name,
            "weighting": project.recipe.score.weighting,
            "unit": run.unit if run else None,
            "images": images,
            "oracle_seeds": list(run.seeds) if run else [],
            "training_check": trained.to_dict() if trained else None,
            "models": [
                {"group": what.name, "check": checked, "distances": asdict(found) if found else None}
                for what, checked, found in entries
            ],
        }
    )
    if trained:
        console.out(trained.sentence)
    rows = [
        (what.short, (checked or {}).get("verdict"), *_cells(found), (checked or {}).get("why"))
        for what, checked, found in entries
    ]
    shown, more = console.fold(rows, lambda row: row[1] not in (None, "passed"))
    caption = "no group has a retrained model: guda train --each-group --seeds 2,3"
    if run:
        caption = (
            f"Distances to the retrained model over {images} images a model (± s.e.), {run.unit}: of the "
            "unlearned model, of another retrained one (chance), of the full one. left: 0 is as near as "
            "another training, 1 is nothing unlearned."
        )
    console.out(console.table(COLUMNS, shown))
    if more:
        console.prose(more)
    console.prose(caption)


def _cells(found: Distances | None) -> tuple[str, str, str, str]:
    if found is None:
        return "–", "–", "–", "–"
    return _text(found.unlearned), _text(found.retrained), _text(found.full), _text(found.left)


def _text(one: Estimate | None) -> str:
    from guda_cli.report.pieces.text import significant

    return "–" if one is None else f"{significant(one.value)} ± {significant(one.se, 2)}"
