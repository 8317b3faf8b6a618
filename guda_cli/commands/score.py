"""`guda score`: which groups is each image owed to?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guda_cli import completions
from guda_cli.attribution import methods
from guda_cli.commands.common import (
    LARGEST_SEED,
    keep_out_of_data,
    open_project,
    parse_seeds,
    refuse_lost,
    show_plan,
)
from guda_cli.commands.score_output import Mapper, Printer
from guda_cli.commands.share_output import show_shares
from guda_cli.diffusion.weighting import HELP as WEIGHTINGS
from guda_cli.errors import DataError, UsageError
from guda_cli.phrases import few, plural
from guda_cli.session import ForceOption, GroupOption, Session, command_options, complete_group

if TYPE_CHECKING:
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.scoring.counterfactual_run import Settings
    from guda_cli.workflow.scoring.run import Run

MANY = 3  # more images than this get a line each
METHODS_HELP = f"{methods.help_text()}; several: guda,similarity."


@command_options(recipe=True, device=True, dry_run=True, wait=True)
def score(
    session: Session,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE|DIR|GLOB|-", help="Images; - reads paths from stdin."),
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", "-k", min=1, help="Groups shown an image [5; 1 with --race].")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            autocompletion=completions.several_of(completions.methods),
            metavar="NAMES",
            help=METHODS_HELP,
        ),
    ] = "guda",
    operator: Annotated[
        str | None,
        typer.Option(
            "--operator",
            autocompletion=completions.one_of(completions.operators),
            metavar="NAME",
            help="Score with this operator's models [the recipe's].",
        ),
    ] = None,
    group: GroupOption = None,
    weighting: Annotated[
        str | None,
        typer.Option(
            "--weighting",
            metavar="NAME",
            autocompletion=completions.one_of(completions.WEIGHTINGS),
            help=f"{WEIGHTINGS} [the recipe's].",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            "--grid",
            metavar="NAME",
            autocompletion=completions.one_of(completions.GRIDS),
            help="strata, strata:even, all or stride:N [the recipe's].",
        ),
    ] = None,
    timesteps: Annotated[
        int | None, typer.Option("--timesteps", min=1, help="Strata of the grid [the recipe's].")
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws",
            min=1,
            help="Noise draws a timestep [the recipe's]; with --race the most, of 4 forwards each [32].",
        ),
    ] = None,
    rank: Annotated[
        str,
        typer.Option(
            "--rank",
            autocompletion=completions.one_of(completions.RANKS),
            metavar="auto|score|z|per-image",
            help="What groups are ranked by; auto: the score, z where their sizes differ more than twofold.",
        ),
    ] = "auto",
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="SE|P%",
            help="Draw more until the first group's score has this error, or is so sure to be the first.",
        ),
    ] = None,
    race: Annotated[
        str | None,
        typer.Option(
            "--race",
            metavar="P%",
            help="Draw only until the --top groups are so sure to be the first; no verdicts then.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=LARGEST_SEED, help="Seed of noise and timesteps [the recipe's]."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="N,N,...",
            help="Seeds of the oracle's models [all there are], or of unlearned ones [the recipe's].",
        ),
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
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="Text-to-image models: the prompt of all images; repeat to average over several [what each "
            "file or the metadata beside it say, else the empty prompt].",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="Prompts of images: CSV or JSON lines of image, prompt."
        ),
    ] = None,
    instances: Annotated[
        int,
        typer.Option(
            "--instances", metavar="N", min=0, help="Also the N training images of the highest score."
        ),
    ] = 0,
    shares: Annotated[
        bool,
        typer.Option(
            "--shares",
            help="Shapley and Banzhaf shares among the groups named by --group, and whether their scores add "
            "up (needs guda unlearn --coalitions).",
        ),
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            autocompletion=completions.one_of(("pixels",)),
            metavar="pixels|PATH|HUB_ID",
            help="What similarity compares [the recipe's].",
        ),
    ] = None,
    aggregate: Annotated[
        str | None,
        typer.Option(
            "--aggregate",
            metavar="NAME",
            autocompletion=completions.one_of(completions.AGGREGATES),
            help="Images' scores to a group's: mean, sum, max or top:M [the recipe's].",
        ),
    ] = None,
    map_path: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE|DIR", help="Write per-pixel maps of the top groups here."),
    ] = None,
    import_path: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="FILE",
            help="Take another method's scores (CSV or JSON: image, group, score).",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What tables call the imported method [the file's name].")
    ] = None,
    force: ForceOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")] = False,
) -> None:
    """Rank the groups each image is owed to, with errors.

    A score is the ELBO of the full model minus that of the model without the group: positive means that
    without the group the model explains the image worse. An image scored before costs nothing. Other methods
    rank by scores of their own.
    """
    from guda_cli.workflow.scoring.conditions import Given
    from guda_cli.workflow.scoring.counterfactual_run import Settings

    if csv and session.console.json:
        raise UsageError("--csv and --json exclude each other")
    if import_path is not None:
        _import(session, import_path, name, bool(images))
        return
    if name is not None:
        raise UsageError("--name goes with --import")
    session = _with_choices(session, operator, encoder, aggregate)
    project = open_project(session)
    defaults = project.recipe.score
    settings = Settings(
        method="guda",
        groups=tuple(group or ()),
        weighting=weighting or defaults.weighting,
        grid=grid or defaults.grid,
        timesteps=timesteps or defaults.timesteps,
        draws=draws or defaults.draws,
        seed=defaults.seed if seed is None else seed,
        given=Given(class_, tuple(prompt or ()), prompts),
        oracle_seeds=tuple(parse_seeds(seeds)) if seeds else (),
        most_draws=defaults.most_draws,
        until=until or "",
        rank=rank,
        race=race or "",
        race_draws=draws or 0,
    )
    if race is not None:
        _check_race(grid, timesteps, until, map_path, shares)
    if shares:
        if method != "guda" or instances or map_path or csv:
            raise UsageError("--shares goes with --method guda alone, without --csv, --map and --instances")
        show_shares(session, project, settings, images or [])
        return
    shown = top or (1 if race is not None else 5)
    _score(session, project, settings, images or [], method, instances, shown, map_path, csv, force)


def _check_race(
    grid: str | None,
    timesteps: int | None,
    until: str | None,
    map_path: Path | None,
    shares: bool,
) -> None:
    """UsageError for options that say what a race decides itself, or that need every score to the end."""
    others = {
        "--grid": grid, "--timesteps": timesteps, "--until": until, "--map": map_path,
        "--shares": shares or None,
    }  # fmt: skip
    for option, given in others.items():
        if given is not None:
            raise UsageError(f"--race and {option} exclude each other", why="a race draws as far as it needs")


def _score(
    session: Session,
    project: Project,
    settings: Settings,
    images: Sequence[str],
    wanted: str,
    instances: int,
    top: int,
    map_path: Path | None,
    csv: bool,
    force: bool,
) -> None:
    from guda_cli.data.queries import expand
    from guda_cli.workflow.scoring.dispatch import make_runs, parse_methods

    names = parse_methods(wanted, instances=instances, mapped=map_path is not None)
    seeded = [name for name in names if name in ("logo", "guda", "subsets")]
    if settings.oracle_seeds and len(seeded) != 1:
        raise UsageError("--seeds are those of one method's models", fix="--method logo --seeds 2,3")
    paths = expand(images, sys.stdin, session.console.say)
    maps = len(paths) * sum(name in methods.COMPARING for name in names)
    if map_path is not None and maps > 1 and map_path.suffix:
        what = f"{len(paths)} images" if len(paths) > 1 else "several methods"
        raise UsageError(f"--map {map_path}: one file cannot hold the maps of {what}", fix="--map FOLDER")
    if map_path is not None and map_path.suffix not in ("", ".png"):
        raise UsageError(f"--map {map_path}: maps are PNG files", fix="--map FILE.png")
    if map_path is not None:
        keep_out_of_data(project.recipe.data, map_path, "--map")
    runs = make_runs(project, names, settings, session.options.device, instances, top)
    for run in runs:
        run.announce()
    if session.options.dry_run:
        steps = [step for run in runs for step in run.plan(paths)]
        show_plan(session, steps, f"plan: score {plural(len(paths), 'image', 'images')}")
        return
    bad, header, several = 0, True, maps > len(paths)
    mappers = [Mapper(run, map_path, paths, top, f"-{run.method}" if several else "", force) for run in runs]
    for mapper in mappers:
        mapper.check()  # before any work
    for run, mapper in zip(runs, mappers, strict=True):
        many = len(paths) > MANY
        printer = Printer(session.console, run, paths, top, many=many, csv=csv, header=header)
        bad = _show(run, paths, printer, mapper, first=run is runs[0])
        session.console.say(run.summary())
        header = not csv
    refuse_lost(project)
    if bad:
        raise DataError(
            f"{bad} of {len(paths)} images could not be read",
            why="each is named above; the others are scored",
            fix="replace those images, or leave them out",
        )


def _show(run: Run, paths: list[str], printer: Printer, mapper: Mapper, *, first: bool) -> int:
    """Print every result; how many images could not be read.

    The `first` of several methods says what the model does not see of images.
    """
    from guda_cli.data.fitting import notes

    bad, size = 0, run.project.data.shape[1]
    for block in run.blocks(paths):
        for note, names in notes((query.name for query in block.queries if first), size).items():
            run.project.console.warn(f"{few(names, 3)}: {note}")
        for name, reason in block.bad:
            bad += 1
            run.project.console.warn(f"{name}: {reason}")
        printer.begin(block.results)
        for result, query in zip(block.results, block.queries, strict=True):
            printer.show(result)
            mapper.draw(query, result)
    return bad


def _with_choices(
    session: Session, operator: str | None, encoder: str | None, aggregate: str | None
) -> Session:
    from guda_cli.commands.common import with_sets

    given = {
        "unlearn.operator": operator,
        "attribution.encoder": encoder,
        "attribution.aggregate": aggregate,
    }
    sets = [f"{key}={value}" for key, value in given.items() if value is not None]
    return with_sets(session, *sets) if sets else session


def _import(session: Session, path: Path, name: str | None, images: bool) -> None:
    from guda_cli.workflow.scoring.imported import import_scores

    if images:
        raise UsageError("--import takes its images from the file", fix="guda score --import FILE")
    if session.options.dry_run:
        raise UsageError("--import runs nothing: it has no --dry-run")
    done = import_scores(open_project(session), path, name)
    session.console.data({"schema": "guda.import/1", **done.to_dict()})
    session.console.out(
        f"{done.name}: {plural(done.images, 'image', 'images')}, {plural(done.groups, 'group', 'groups')}; "
        "guda report --against logo shows them"
    )
