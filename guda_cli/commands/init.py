"""`guda init`: a look at a folder of images, and a recipe for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guda_cli.console import is_terminal
from guda_cli.errors import DataError, UsageError
from guda_cli.outfile import check, write
from guda_cli.phrases import human_seconds, plural
from guda_cli.plain_text import joined, printable, quoted, spelled, unicode
from guda_cli.session import Session, command_options

if TYPE_CHECKING:
    from guda_cli.data.survey import Survey
    from guda_cli.workflow.project.compute import Compute
    from guda_cli.workflow.starting.proposal import Proposal

LEAST_MINUTES = 0.1
LEAST_PIXELS = 4
SHOWN = 20  # groups in the table


@command_options(device=True)
def init(
    session: Session,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR|ARCHIVE", help="The images: a folder, .tar or .zip.")
    ] = Path(),
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.yaml", help="The recipe.")] = Path(
        "guda.yaml"
    ),
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            "-g",
            metavar="COLUMN",
            help="Groups are the values of this column of metadata.csv or .jsonl, or 'folder' [as they lie].",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="PIXELS", min=LEAST_PIXELS, help="Pixels a side [what fits in]."),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="M", min=LEAST_MINUTES, help="How long guda run may take.")
    ] = 10.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take what is proposed.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite another recipe at --out.")] = False,
) -> None:
    """Look at a folder of images and write a recipe for it, which becomes the current one.

    Counts groups, finds duplicates and what may go wrong, times a few steps of training on this machine, and
    proposes a model, a training and an unlearning that fit into --minutes. Then: guda run.
    """
    from guda_cli.settings import lookup
    from guda_cli.workflow.starting.proposal import check_size
    from guda_cli.workflow.starting.speed import remember

    if out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--out {out}: recipes end in .yaml", fix="--out guda.yaml")
    _check_paths(folder, out)
    if size is not None:
        check_size(size)
    ask = not yes and not session.console.json and is_terminal(sys.stdin) and is_terminal(sys.stderr)
    found = _survey(session, folder, tuple(dict.fromkeys(group or ())))
    if not session.console.json:
        _show_survey(session, found)
    if ask and not group and len(found.columns) > (found.spec.group != ("folder",)):
        chosen = _ask_group(found)
        if (chosen,) != found.spec.group:
            found = _survey(session, folder, (chosen,))
            _show_survey(session, found)
    compute = _compute(session)
    made = _propose(session, found, compute, size, minutes)
    if ask:
        wanted = _ask_size(session, made.recipe.data.size)
        longest = _ask_minutes(minutes)
        if (wanted, longest) != (made.recipe.data.size, minutes):
            wanted_size = wanted if wanted != made.recipe.data.size else size
            made = _propose(session, found, compute, wanted_size, longest)
    _write(made, out, force)
    recipe, _ = lookup.load(str(out if out.is_absolute() else Path.cwd() / out))
    session.make_current(recipe, spelled(str(out.resolve())), list(found.counts), afresh=True)
    remember(session.open_store(), recipe, compute, made.speed)
    _show_plan(session, made, found, out)


def _check_paths(folder: Path, out: Path) -> None:
    """Errors, before any work, where the recipe cannot be written or would not find the images again."""
    for path, error, fix in (
        (folder.absolute(), DataError, "rename the folder"),
        (out.absolute(), UsageError, "--out guda.yaml"),
    ):
        if unicode(str(path)) != str(path):
            raise error(f"the name {str(path)!r} is not valid UTF-8", why="a recipe cannot hold it", fix=fix)
    check(out, fix="--out FILE.yaml", force=True)


def _ask_size(session: Session, proposed: int) -> int:
    from guda_cli.workflow.starting.proposal import check_size

    while True:
        size: int = typer.prompt("Pixels a side", default=proposed, type=int, err=True)
        try:
            check_size(size)
        except UsageError as err:
            session.console.warn(f"{err.message} ({err.fix})".replace("--size ", ""))
        else:
            return size


def _ask_minutes(proposed: float) -> float:
    while True:
        given: float = typer.prompt("Minutes that guda run may take", default=proposed, type=float, err=True)
        if given >= LEAST_MINUTES:  # not so of nan
            return given


def _survey(session: Session, folder: Path, group: tuple[str, ...]) -> Survey:
    from guda_cli.data.survey import survey
    from guda_cli.sections import DataSpec
    from guda_cli.workflow.project.project import reading_progress

    if not folder.exists():
        raise DataError(f"there is nothing at {folder}", fix="name the folder of the images")
    with reading_progress(session.console, DataSpec()) as advance:
        return survey(os.fspath(folder), group, advance)


def _show_survey(session: Session, found: Survey) -> None:
    from guda_cli.workflow.starting.proposal import remarks

    console, counts = session.console, found.counts
    formats = ", ".join(f"{name} {count:,}" for name, count in found.formats.items())
    side = f"{found.smallest}" if found.smallest == found.largest else f"{found.smallest} to {found.largest}"
    by = "folder" if found.spec.group == ("folder",) else ", ".join(found.spec.group)
    where = f", below {found.spec.root}" if found.spec.root else ""
    console.out(
        f"{plural(found.images, 'image', 'images')} in {plural(len(counts), 'group', 'groups')}"
        f" by {by}{where}; {side} pixels on the shorter side, {'grey' if found.grey else 'in colour'}; "
        f"{formats}"
    )
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [(name, count) for name, count in largest[:SHOWN]]
    if len(largest) > SHOWN:
        rest = largest[SHOWN:]
        rows.append((f"and {len(rest)} more", sum(count for _, count in rest)))
    console.out(console.table(["group", "images"], rows))
    for text in remarks(found):
        console.warn(text)


def _ask_group(found: Survey) -> str:
    known = ["folder", *found.columns] if "folder" in found.spec.group else list(found.columns)
    while True:
        usual = found.spec.group[0]
        asked = printable(f"Groups by ({', '.join(known)}) [{usual}]")
        given: str = typer.prompt(asked, default=usual, show_default=False, err=True)
        if given in known:
            return given


def _compute(session: Session) -> Compute:
    from guda_cli.workflow.project.compute import setup

    compute = setup(session.options.device)
    session.console.detail(
        f"timing a few steps on {compute.device.type}, {plural(compute.threads, 'thread', 'threads')}"
    )
    return compute


def _propose(session: Session, found: Survey, compute: Compute, size: int | None, minutes: float) -> Proposal:
    from guda_cli.workflow.starting.proposal import propose
    from guda_cli.workflow.starting.speed import measure

    name = Path(found.spec.path or "images").resolve().name.partition(".")[0] or "images"
    return propose(
        found, lambda recipe: measure(recipe, compute, found.counts), name=name, size=size, minutes=minutes
    )


def _write(made: Proposal, out: Path, force: bool) -> None:
    from guda_cli.workflow.starting.written import text_of

    text = text_of(made, out)
    if out.exists() and not force and out.read_text(encoding="utf-8", errors="replace") != text:
        raise DataError(
            f"{out} is there already, and says something else",
            why="a recipe that you may have edited is not overwritten; --out names another, --force does it",
            fix=f"guda run {quoted(str(out))}",
        )
    write(out, text, force=True, fix="--out FILE.yaml")


def _next(found: Survey) -> list[str]:
    """The command that does the rest, writing its images beside the training images, not among them."""
    from guda_cli.commands.common import in_data

    queries = Path("queries")
    if not in_data(found.spec, queries):
        return ["guda", "run"]
    top = (Path(found.spec.path or "") / found.spec.root).resolve()
    return ["guda", "run", "--out", os.path.relpath(top.parent / f"{top.name}-queries")]


def _show_plan(session: Session, made: Proposal, found: Survey, out: Path) -> None:
    console, costs, recipe = session.console, made.costs, made.recipe
    groups = len(found.counts)
    console.data(
        {
            "schema": "guda.init/1",
            "recipe": str(out),
            "images": found.images,
            "groups": [{"name": name, "size": count} for name, count in found.counts.items()],
            "group_by": list(found.spec.group),
            "columns": list(found.columns),
            "root": found.spec.root,
            "side": {"smallest": found.smallest, "median": found.median, "largest": found.largest},
            "formats": dict(found.formats),
            "grey": found.grey,
            "captions": found.prompts,
            "models": list(found.models),
            "duplicates": {
                "same": list(found.same),
                "same_across": list(found.same_across),
                "near": list(found.near),
                "near_across": list(found.near_across),
            },
            "proposed": {
                "size": recipe.data.size,
                "channels": recipe.data.channels,
                "train_steps": recipe.train.steps,
                "operator": recipe.unlearn.operator,
                "unlearn_steps": recipe.unlearn.steps,
                "null_groups": recipe.unlearn.null_groups,
            },
            "seconds": {
                "train": costs.train,
                "unlearn": costs.unlearn,
                "sample": costs.sample,
                "score": costs.score,
                "whole": costs.whole,
                "retrain_every_group": costs.retrain,
            },
        }
    )
    rows = [
        ("train", f"{recipe.train.steps:,} steps at {recipe.data.size} pixels a side", costs.train),
        (
            "unlearn",
            f"{groups} groups, {recipe.unlearn.steps} steps each with {recipe.unlearn.operator}",
            costs.unlearn,
        ),
        ("sample", "16 images", costs.sample),
        ("score", f"these, and {recipe.score.calibration} training images for the verdicts", costs.score),
        ("all of it", "", costs.whole),
        ("instead", f"retraining without each of {groups} groups", costs.retrain),
    ]
    table = [(what, how, human_seconds(seconds)) for what, how, seconds in rows]
    console.out(console.table(["step", "", "about"], table, title=f"{out}: the plan", right=("about",)))
    if not made.within:
        asked = "a minute" if made.minutes == 1 else f"{made.minutes:g} minutes"
        console.warn(f"the plan takes longer than {asked}: less of it would draw noise")
    if costs.retraining_is_cheaper:
        console.warn("retraining every group is no dearer: guda run --method logo")
    console.say(f"next: {joined(_next(found))}")
