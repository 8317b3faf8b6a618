"""`guda groups`: the groups of the current recipe, and what there is of each."""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from guda_cli.console import width_of
from guda_cli.errors import UsageError
from guda_cli.session import Session, command_options

if TYPE_CHECKING:
    from guda_cli.workflow.reporting.groups_known import Known


class Sort(enum.StrEnum):
    """Orders of the groups: `report.group_rows.SORTS`."""

    SIZE = "size"
    NAME = "name"
    CHECK = "check"
    SCORE = "score"
    STANDS_OUT = "stands-out"


@command_options(recipe=True)
def groups(
    session: Session,
    sort: Annotated[
        Sort,
        typer.Option(
            "--sort", metavar="BY", help="What comes first: size, name, check, score or stands-out."
        ),
    ] = Sort.SIZE,
    top: Annotated[int | None, typer.Option("--top", "-k", min=1, help="Only so many groups [all].")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.", show_default=False)] = False,
) -> None:
    """List the groups of the current recipe: images, unlearned and retrained models, checks, scores.

    Where nothing has been trained the groups and their sizes are read from the data. Runs no model and
    writes nothing.
    """
    from guda_cli.report import group_rows

    if csv and session.console.json:
        raise UsageError("--csv and --json exclude each other")
    recipe, known = _known(session)
    rows = group_rows.ordered(known.rows, sort.value)[:top]
    console = session.console
    console.data(group_rows.to_json(recipe, known.images, rows))
    if csv:
        console.file(group_rows.to_csv(rows))
    elif not console.json:
        console.out(group_rows.table(rows, width_of(sys.stdout)))
        left = len(known.rows) - len(rows)
        if left:
            console.out(f"and {left} more")
        console.out(group_rows.summary(known.images, known.rows, known.scored))
        if any(row.unlearned and not row.current for row in rows):
            console.out(group_rows.OTHERS)


def _known(session: Session) -> tuple[str, Known]:
    """The recipe's name, and what is known of its groups."""
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.reporting.groups_known import from_source, from_store

    recipe = session.recipe_and_source(default_digits=True)[0]
    if not session.store_path.exists():  # looking makes none
        return recipe.name, from_source(recipe, session.console)
    return recipe.name, from_store(Project(recipe, session.open_store(create=False), session.console))
