"""`guda score`: which groups is each image owed to?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli.commands.common import open_project, show_plan
from guda_cli.errors import DataError, UsageError
from guda_cli.session import GroupOption, Session, command_options, complete_group

if TYPE_CHECKING:
    from guda_cli.data.queries import Query
    from guda_cli.report.model import QueryResult
    from guda_cli.workflow.score_run import ScoreRun

MANY = 3  # more images than this get a line each


@command_options(recipe=True, device=True, dry_run=True, wait=True)
def score(
    session: Session,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE|DIR|GLOB|-", help="Images; - reads paths from stdin.")
    ],
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Groups shown an image.")] = 5,
    method: Annotated[
        str, typer.Option("--method", help="guda (unlearned models) or logo (retrained ones).")
    ] = "guda",
    group: GroupOption = None,
    weighting: Annotated[
        str | None,
        typer.Option("--weighting", help="elbo, uniform, min-snr:GAMMA or band:LO-HI [the recipe's]."),
    ] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", help="strata, all or stride:N [the recipe's].")
    ] = None,
    timesteps: Annotated[
        int | None, typer.Option("--timesteps", min=1, help="Strata of the grid [the recipe's].")
    ] = None,
    draws: Annotated[
        int | None, typer.Option("--draws", min=1, help="Noise draws a timestep [the recipe's].")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of noise and timesteps [the recipe's].")
    ] = None,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Class-conditional models: the class of all images [what each file or the metadata "
            "beside it say, else none].",
            autocompletion=complete_group,
        ),
    ] = None,
    map_path: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE|DIR", help="Write per-pixel maps of the top groups here."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")] = False,
) -> None:
    """Rank the groups each image is owed to, with errors.

    A score is the ELBO of the full model minus that of the model without the group: positive means that
    without the group the model explains the image worse. An image scored before costs nothing.
    """
    from guda_cli.data.queries import expand
    from guda_cli.workflow.score_run import ScoreRun, Settings

    project = open_project(session)
    defaults = project.recipe.score
    settings = Settings(
        method=method,
        groups=tuple(group or ()),
        weighting=weighting or defaults.weighting,
        grid=grid or defaults.grid,
        timesteps=timesteps or defaults.timesteps,
        draws=draws or defaults.draws,
        seed=defaults.seed if seed is None else seed,
        condition=class_,
    )
    paths = expand(images, sys.stdin)
    if csv and session.console.json:
        raise UsageError("--csv and --json exclude each other")
    run = ScoreRun(project, settings, session.options.device)
    run.announce()
    if map_path is not None and len(paths) > 1 and map_path.suffix:
        raise UsageError(
            f"--map {map_path}: one file cannot hold the maps of {len(paths)} images", fix="--map FOLDER"
        )
    if session.options.dry_run:
        show_plan(session, run.plan(paths), f"plan: score {len(paths)} images")
        return
    printer = Printer(session, run, top, many=len(paths) > MANY, csv=csv)
    bad, mapped = 0, set[Path]()
    for result, query in _results(run, paths):
        if query is None:
            bad += 1
            continue
        assert result is not None
        printer.show(result)
        if map_path is not None:
            path = map_path if map_path.suffix else _map_in(map_path, query.name, mapped)
            run.write_map(query, result, top, path)
            session.console.say(f"map: {path}")
    session.console.say(run.summary())
    if bad:
        raise DataError(
            f"{bad} of {len(paths)} images could not be read",
            why="each is named above; the others are scored",
        )


def _map_in(folder: Path, name: str, taken: set[Path]) -> Path:
    """Where the map of an image goes in `folder`; images alike in name get a number."""
    stem = Path(name).stem
    path, number = folder / f"{stem}.png", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}-{number}.png"
    taken.add(path)
    return path


def _results(run: ScoreRun, paths: list[str]) -> Iterator[tuple[QueryResult | None, Query | None]]:
    for block in run.blocks(paths):
        for name, reason in block.bad:
            run.project.console.warn(f"{name}: {reason}")
            yield None, None
        yield from zip(block.results, block.queries, strict=True)


class Printer:
    """Prints results as they come: JSON lines, CSV rows, full tables for few images, a line each for many."""

    def __init__(self, session: Session, run: ScoreRun, top: int, *, many: bool, csv: bool) -> None:
        self.console, self.run, self.top, self.many, self.csv = session.console, run, top, many, csv
        self._first = True

    def show(self, result: QueryResult) -> None:
        """Print one image's answer."""
        from guda_cli.report import lines, tables, terminal

        if self.console.json:
            self.console.data(tables.score_document(result, **self.context()))
        elif self.csv:
            self.console.out(
                "\n".join(
                    tables.csv_lines(
                        result, self.run.settings.method, self.run.settings.weighting, header=self._first
                    )
                )
            )
        elif self.many:
            if self._first:
                self.console.out(f"{self.run.describe()}\n")
            self.console.out(lines.query_line(result, self.top))
        else:
            if self._first:
                self.console.out(f"{self.run.describe()}\n")
            self.console.out(terminal.query_table(result, self.top, self.run.reading.unit))
        self._first = False

    def context(self) -> dict[str, Any]:
        """What every JSON line says of how it was computed."""
        settings, found = self.run.settings, self.run.found
        return {
            "method": settings.method,
            "weighting": settings.weighting,
            "unit": self.run.reading.unit,
            "grid": dict(self.run.grid_spec),
            "recipe": self.run.project.recipe.name,
            "models": {name or "full": record.outputs["weights"] for name, record in found.records().items()},
            "not_scored": [what.name for what in found.lacking],
            "warnings": self.run.warnings,
        }
