"""`guda report`: everything scored so far, for a person and for a script."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from guda_cli.commands.common import open_project
from guda_cli.console import WIDE, is_terminal
from guda_cli.errors import DataError, UsageError
from guda_cli.session import Session, command_options


@command_options(recipe=True)
def report(
    session: Session,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one self-contained HTML file.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print the scores as CSV.")] = False,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Groups shown an image.")] = 5,
    method: Annotated[str, typer.Option("--method", help="guda or logo.")] = "guda",
    weighting: Annotated[
        str | None,
        typer.Option("--weighting", help="elbo, uniform, min-snr:GAMMA or band:LO-HI [the recipe's]."),
    ] = None,
) -> None:
    """Report on every image scored with the current models: table, HTML, CSV or JSON. Runs no model."""
    import sys

    from guda_cli.report import html as pages
    from guda_cli.report import tables, terminal
    from guda_cli.workflow.reporting import build

    if csv and session.console.json:
        raise UsageError("--csv and --json exclude each other")
    project = open_project(session)
    model = build(project, method, weighting or project.recipe.score.weighting)
    for text in model.warnings:
        session.console.warn(text)
    if html is not None:
        _write(html, pages.render(model, top=top))
        session.console.say(f"report: {html}")
    session.console.data(tables.to_json(model))
    if csv:
        session.console.out(tables.to_csv(model).rstrip("\n"))
    elif not session.console.json:
        width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else WIDE
        for part in terminal.render(model, top, width):
            session.console.out(part)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as err:
        raise DataError(f"cannot write {path}", why=err.strerror or str(err), fix="--html FILE") from None
