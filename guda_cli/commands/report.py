"""`guda report`: everything scored so far, for a person and for a script."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli import completions
from guda_cli.commands.common import LARGEST_SEED, open_project, parse_seeds, refuse_lost, with_sets
from guda_cli.console import Console, width_of
from guda_cli.diffusion.weighting import HELP as WEIGHTINGS
from guda_cli.errors import DataError, UsageError
from guda_cli.outfile import PAGE, check, write
from guda_cli.session import ForceOption, Session, command_options

if TYPE_CHECKING:
    from guda_cli.report.answers.content import ReportModel
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.reporting.answers_report import Shown
    from guda_cli.workflow.reporting.gallery import Request
    from guda_cli.workflow.reporting.page_maps import Request as MapRequest
    from guda_cli.workflow.reporting.regeneration import Request as Redraw
    from guda_cli.workflow.scoring.asked_scores import Asked


@command_options(recipe=True, device=True)
def report(
    session: Session,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE|DIR|GLOB|-", help="Only these images, by their pixels; - reads paths from stdin."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one self-contained HTML file; - prints it."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print the scores or the table as CSV.")] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="With --against: print the tables for LaTeX.")
    ] = False,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Groups shown an image.")] = 5,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            autocompletion=completions.several_of(completions.methods),
            metavar="NAMES",
            help="One of guda score's methods [guda]; with --against, several: only these rows [all].",
        ),
    ] = None,
    weighting: Annotated[
        str | None,
        typer.Option(
            "--weighting",
            metavar="NAMES",
            autocompletion=completions.several_of(completions.WEIGHTINGS),
            help=f"{WEIGHTINGS}; with --against several: a table each [the recipe's].",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            autocompletion=completions.one_of(("logo",)),
            metavar="logo",
            help="Judge every method by the retrained models.",
        ),
    ] = None,
    center: Annotated[
        bool,
        typer.Option(
            "--center", help="With --against: take each model's mean over the images from its scores."
        ),
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="N,N,...", help="With --against: these seeds of the oracle [all]."),
    ] = None,
    instances: Annotated[
        int,
        typer.Option("--instances", metavar="N", min=0, help="Training images shown an image, where scored."),
    ] = 0,
    aggregate: Annotated[
        str | None,
        typer.Option(
            "--aggregate",
            metavar="NAME",
            autocompletion=completions.one_of(completions.AGGREGATES),
            help="Images' scores to a group's: mean, sum, max or top:M [the recipe's].",
        ),
    ] = None,
    gallery: Annotated[
        bool,
        typer.Option(
            "--gallery",
            help="Draw the first images again, by the models without their highest groups from the same "
            "noise: what they had been, had these groups never been seen.",
        ),
    ] = False,
    grid: Annotated[
        str,
        typer.Option(
            "--grid",
            metavar="NAME",
            autocompletion=completions.one_of(completions.GRIDS),
            help="What was scored on this grid [the recipe's].",
        ),
    ] = "",
    timesteps: Annotated[
        int | None, typer.Option("--timesteps", min=1, help="... with so many strata [the recipe's].")
    ] = None,
    draws: Annotated[
        int | None, typer.Option("--draws", min=1, help="... with so many draws [the recipe's].")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=LARGEST_SEED, help="... with this seed [the recipe's].")
    ] = None,
    rank: Annotated[
        str,
        typer.Option(
            "--rank",
            autocompletion=completions.one_of(completions.RANKS),
            metavar="auto|score|z|per-image",
            help="What groups are ranked by, as in guda score.",
        ),
    ] = "auto",
    gallery_images: Annotated[
        int | None,
        typer.Option("--gallery-images", metavar="N", min=1, help="--gallery of so many images [8]."),
    ] = None,
    gallery_top: Annotated[
        int | None,
        typer.Option("--gallery-top", metavar="K", min=1, help="--gallery of so many groups an image [3]."),
    ] = None,
    regeneration: Annotated[
        int | None,
        typer.Option(
            "--regeneration",
            metavar="N",
            min=1,
            help="Draw the first N images again without their highest groups, and without others: which "
            "changes them more?",
        ),
    ] = None,
    regeneration_top: Annotated[
        int,
        typer.Option(
            "--regeneration-top", metavar="K", min=1, help="--regeneration without the K highest at once."
        ),
    ] = 1,
    regeneration_by: Annotated[
        str | None,
        typer.Option(
            "--regeneration-by",
            autocompletion=completions.one_of(("guda", "logo")),
            metavar="guda|logo",
            help="Whose models draw [the method's own; for methods without, logo's where there are any].",
        ),
    ] = None,
    training: Annotated[
        int,
        typer.Option(
            "--training",
            metavar="N",
            min=0,
            help="Put N training images of each named group beside the answers of the page: the nearest by "
            "their pixels. Runs no model. The page then holds these images.",
        ),
    ] = 0,
    maps: Annotated[
        bool,
        typer.Option(
            "--maps",
            help="Put maps of the highest groups into the cards of the page's first images, as guda score "
            "--map: as many network forwards as it takes to score them, at every call.",
        ),
    ] = False,
    maps_images: Annotated[
        int | None, typer.Option("--maps-images", metavar="N", min=1, help="--maps of so many images [8].")
    ] = None,
    maps_top: Annotated[
        int | None,
        typer.Option("--maps-top", metavar="K", min=1, help="--maps of so many groups an image [3]."),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Report on the images scored with the current models and the recipe's settings: table, HTML, CSV or
    JSON. Runs no model but for --gallery, --regeneration and --maps.

    With --against logo: how well each method agrees with retraining.
    """
    from guda_cli.workflow.scoring.asked_scores import Asked

    if csv + latex + session.console.json > 1:
        raise UsageError("--csv, --latex and --json exclude each other")
    if html is not None and str(html) != "-":
        check(html, fix="--html FILE", force=force, kind=PAGE)  # before any work
    if aggregate:
        session = with_sets(session, f"attribution.aggregate={aggregate}")
    asked = gallery or gallery_images or gallery_top
    request = _gallery(session, gallery_images or 8, gallery_top or 3, html) if asked else None
    redraw = _redraw(session, regeneration, regeneration_top, regeneration_by)
    mapped = maps or maps_images or maps_top
    map_request = _maps(session, maps_images or 8, maps_top or 3, html) if mapped else None
    if training and html is None:
        raise UsageError("--training needs a page for its pictures", fix="--html FILE")
    project = open_project(session)
    chosen = weighting or project.recipe.score.weighting
    asked_for = Asked(grid, timesteps, draws, seed, _digests(project, images) if images else None)
    if against is not None:
        if against != "logo":
            raise UsageError(f"--against {against}: the oracle is logo", fix="--against logo")
        pictures = {
            "--gallery": request, "--regeneration": redraw, "--maps": map_request, "--training": training
        }  # fmt: skip
        for name in [name for name, given in pictures.items() if given]:
            raise UsageError(f"{name} does not go with --against")
        found = _agreement(project, chosen, method, center, seeds, asked_for)
        _show_agreement(session.console, found, html, csv, latex, force)
        refuse_lost(project)
        return
    for given, option in ((latex, "--latex"), (center, "--center"), (seeds, "--seeds")):
        if given:
            raise UsageError(f"{option} goes with --against logo")
    from guda_cli.workflow.reporting.answers_report import Shown

    shown = Shown(rank, asked_for, request, redraw, training, map_request)
    model = _scores(project, method or "guda", chosen, instances, shown)
    _show_scores(session.console, model, html, csv, top, force)
    refuse_lost(project)


def _digests(project: Project, images: Sequence[str]) -> frozenset[str]:
    """Those of the images' pixels; files that cannot be read are named. DataError where none can."""
    from guda_cli.data.queries import expand
    from guda_cli.workflow.scoring.run import load

    queries, bad = load(project, expand(images, sys.stdin, project.console.say), None)
    for name, reason in bad:
        project.console.warn(f"{name}: {reason}")
    if not queries:
        raise DataError(
            "none of the images could be read",
            why="each is named above",
            fix="replace those images, or leave them out",
        )
    return frozenset(query.pixels_digest for query in queries)


def _gallery(session: Session, images: int, top: int, html: Path | None) -> Request:
    from guda_cli.workflow.reporting.gallery import Request

    if html is None and not session.console.json:
        raise UsageError("--gallery needs a page for its pictures", fix="--html FILE")
    return Request(images, top, session.options.device)


def _maps(session: Session, images: int, top: int, html: Path | None) -> MapRequest:
    from guda_cli.workflow.reporting.page_maps import Request

    if html is None:
        raise UsageError("--maps needs a page for its pictures", fix="--html FILE")
    return Request(images, top, session.options.device)


def _redraw(session: Session, images: int | None, top: int, by: str | None) -> Redraw | None:
    from guda_cli.workflow.reporting.regeneration import Request

    if by not in (None, "guda", "logo"):
        raise UsageError(f"--regeneration-by {by}", why="guda and logo make models without a group")
    if images is None:
        if by or top > 1:
            option = "--regeneration-by" if by else "--regeneration-top"
            raise UsageError(f"{option} goes with --regeneration", fix="--regeneration 32")
        return None
    return Request(images, top, by or "", session.options.device)


def _scores(project: Project, method: str, weighting: str, instances: int, shown: Shown) -> ReportModel:
    from guda_cli.workflow.scoring.dispatch import parse_methods

    [*names] = parse_methods(method, instances=instances)
    if len(names) > 1:
        raise UsageError("one method a report", fix="--against logo")
    from guda_cli.workflow.reporting.answers_report import of_method

    return of_method(project, names[0], weighting, shown, instances=instances)


def write_report(
    console: Console, project: Project, method: str, html: Path, top: int, *, force: bool = False
) -> None:
    """The page of everything scored by `method` with the recipe's settings."""
    from guda_cli.report.answers import page as pages
    from guda_cli.workflow.reporting.answers_report import Shown

    model = _scores(project, method, project.recipe.score.weighting, 0, Shown())
    _write_page(console, html, pages.render(model, top=top), force)


def _show_scores(
    console: Console, model: ReportModel, html: Path | None, csv: bool, top: int, force: bool
) -> None:
    from guda_cli.report.answers import formats, terminal
    from guda_cli.report.answers import page as pages

    printed = not (csv or console.json or html is not None)  # and its warnings with it
    for text in () if printed else model.warnings:
        console.warn(text)
    for text in model.gallery.notes if model.gallery else ():
        console.say(f"gallery: {text}")
    for text in model.regeneration.notes if model.regeneration else ():
        console.say(f"regeneration: {text}")
    if html is not None:
        _write_page(console, html, pages.render(model, top=top), force)
    console.data(formats.to_json(model))
    if csv:
        console.file(formats.to_csv(model).removesuffix("\n"))
    elif printed:
        _print(console, terminal.render(model, top, width_of(sys.stdout), all_rows=console.all_rows))


def _agreement(
    project: Project, weighting: str, method: str | None, center: bool, seeds: str | None, asked: Asked
) -> Any:
    from guda_cli.workflow.reporting.agreement_report import build, check_weightings

    methods = [part.strip() for part in method.split(",")] if method else []
    chosen = parse_seeds(seeds) if seeds else ()
    return build(
        project, check_weightings(weighting), methods=methods, centred=center, seeds=chosen, asked=asked
    )


def _show_agreement(
    console: Console, found: Any, html: Path | None, csv: bool, latex: bool, force: bool
) -> None:
    from guda_cli.report.agreement import formats, page, terminal

    printed = not (csv or latex or console.json or html is not None)
    for text in () if printed else found.warnings:
        console.warn(text)
    if html is not None:
        _write_page(console, html, page.render_html(found), force)
    console.data(formats.to_json(found))
    if csv:
        console.file(formats.to_csv(found).removesuffix("\n"))
    elif latex:
        console.file(formats.to_latex(found).removesuffix("\n"))
    elif printed:
        _print(console, terminal.render_terminal(found, width_of(sys.stdout)))


def _write_page(console: Console, path: Path, text: str, force: bool) -> None:
    if str(path) == "-":
        console.file(text)
        return
    write(path, text, fix="--html FILE", force=force)
    console.say(f"report: {path}")


def _print(console: Console, parts: Iterable[Any]) -> None:
    for part in parts:
        console.out(part)
