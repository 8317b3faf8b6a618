"""How `guda score --shares` runs and prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from guda_cli.commands.common import refuse_lost, show_plan
from guda_cli.errors import DataError, UsageError
from guda_cli.phrases import plural
from guda_cli.session import Session

if TYPE_CHECKING:
    from guda_cli.report.share_tables import ImageShares
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.scoring.coalition_run import CoalitionRun
    from guda_cli.workflow.scoring.counterfactual_run import Settings


def show_shares(session: Session, project: Project, settings: Settings, images: Sequence[str]) -> None:
    """Shares of each image, as tables or JSON lines. Errors as `CoalitionRun`; DataError for a bad file."""
    from guda_cli.data.queries import expand
    from guda_cli.workflow.scoring.coalition_run import CoalitionRun

    if not settings.groups:
        raise UsageError("--shares needs the groups that share", fix="--shares --group A --group B")
    paths = expand(images, sys.stdin, session.console.say)
    found = CoalitionRun(project, settings, session.options.device)
    found.run.announce()
    if session.options.dry_run:
        show_plan(session, found.run.plan(paths), f"plan: shares of {plural(len(paths), 'image', 'images')}")
        return
    bad = 0
    for done, unreadable in found.results(paths):
        for name, reason in unreadable:
            project.console.warn(f"{name}: {reason}")
        bad += len(unreadable)
        for one in done:
            _show(session, found, one)
    project.console.say(found.run.summary())
    refuse_lost(project)
    if bad:
        raise DataError(
            f"{bad} of {len(paths)} images could not be read",
            why="each is named above",
            fix="replace those images, or leave them out",
        )


def _show(session: Session, found: CoalitionRun, one: ImageShares) -> None:
    from guda_cli.report.pieces.text import significant
    from guda_cli.report.share_tables import COLUMNS, PAIR_COLUMNS, pair_rows, share_rows

    console, run = session.console, found.run
    context = {name: run.context()[name] for name in ("method", "weighting", "unit", "grid", "recipe")}
    console.data(one.document(**context))
    errors = f"over {one.permutations} permutations" if one.permutations else "Monte-Carlo"
    caption = f"{run.unit}; together {significant(one.total)}; ± standard errors, of shares {errors}"
    rows = share_rows(one.shares)
    console.out(console.table(COLUMNS, rows, title=one.image, caption=caption, right=COLUMNS[1:]))
    if one.additivity:
        title = "Together beyond the sum of both alone: above 0 they stand in for each other"
        pairs = pair_rows(one.additivity)
        caption = "what all unlearned models share shifts every pair alike"
        console.out(console.table(PAIR_COLUMNS, pairs, title=title, caption=caption, right=PAIR_COLUMNS[1:]))
