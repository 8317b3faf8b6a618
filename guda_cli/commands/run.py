"""`guda run`: train, unlearn, sample, score and report, each where it is missing."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli.commands.common import (
    VERDICTS,
    counted,
    keep_out_of_data,
    refuse_lost,
    show_plan,
    time_once,
    verdicts_of,
)
from guda_cli.commands.report import write_report
from guda_cli.commands.sample import MANIFEST, draw
from guda_cli.commands.score_output import Printer
from guda_cli.commands.train import tell_training
from guda_cli.errors import CheckError, DataError, UsageError
from guda_cli.outfile import DOCUMENT, PAGE, PICTURE, check, write
from guda_cli.phrases import few, human_seconds, plural
from guda_cli.session import ForceOption, RecipeArgument, Session, command_options
from guda_cli.time_left import Stages

if TYPE_CHECKING:
    from guda_cli.console import Console
    from guda_cli.report.answers.content import QueryResult
    from guda_cli.store import ActionRecord
    from guda_cli.training.soundness import TrainingCheck
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.starting.whole import Whole


@command_options(recipe=True, device=True, dry_run=True, wait=True, jobs=True)
def run(
    session: Session,
    recipe: RecipeArgument = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many images are drawn.")] = 16,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for these images.")] = Path(
        "queries"
    ),
    html: Annotated[Path, typer.Option("--html", metavar="FILE", help="The report.")] = Path("report.html"),
    method: Annotated[
        str, typer.Option("--method", metavar="guda|logo", help="logo: train again without each group.")
    ] = "guda",
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Groups shown an image.")] = 3,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with code 7 where a check failed or is doubtful.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Do everything: train the full model, unlearn every group, draw images, score them, write a report.

    Without RECIPE the current one is used, or `digits` where nothing is current; `guda init DIR` makes one
    for your images. What the store has is not done again: stop it with Ctrl-C, and the same command goes on.
    """
    if method not in ("guda", "logo"):
        raise UsageError(f"--method {method}: it is guda or logo", fix="guda run --method guda")
    _check_targets(out, html)
    began = time.monotonic()
    project = _project(session, recipe)
    keep_out_of_data(project.recipe.data, out, "--out")
    for path, kind in ((out / MANIFEST, DOCUMENT), (_sheet(out), PICTURE), (html, PAGE)):  # before any work
        check(path, fix="--html FILE" if path == html else "--out DIR", force=force, kind=kind)
    _check_memory(project, count)
    whole = _plan(session, project, method, count)
    if session.options.dry_run:
        show_plan(session, whole.steps, f"plan: run {project.recipe.name}")
        return
    todo = sum(step.status != "cached" for step in whole.steps)
    session.console.say(
        f"{project.recipe.name}: {plural(todo, 'step', 'steps')} of {len(whole.steps)} to do"
        + (f", about {human_seconds(whole.seconds)}" if whole.seconds else "")
        + " (--dry-run lists them; Ctrl-C stops, the same command goes on)"
    )
    stages = session.console.stages = Stages(whole.stages)
    stages.begin("train")
    trained = _train(session, project)
    stages.begin("models")
    models = _models(session, project, method)
    verdicts = verdicts_of(project.model(record) for record in models)
    if method == "guda":
        session.console.say(f"unlearned, checks: {counted(verdicts)} (guda check shows why)")
    stages.begin("sample")
    drawn = _sample(session, project, count, out, force)
    stages.begin("score")
    results = _score(session, project, method, drawn, top)
    session.console.stages = None
    write_report(session.console, project, method, html, top, force=force)
    groups = f"{plural(len(models), 'model', 'models')} retrained"
    if verdicts:
        groups = f"{verdicts.total()} unlearned, checks: {counted(verdicts)}"
    document = {
        "schema": "guda.run/1",
        "recipe": project.recipe.name,
        "seconds": time.monotonic() - began,
        "training_check": trained.to_dict() if trained else None,
        "checks": {name: verdicts[name] for name in VERDICTS},
        "folder": str(out),
        "report": str(html),
    }
    _summary(session.console, document, groups, results)
    refuse_lost(project)
    if strict:
        _refuse(trained, verdicts)


def _check_targets(out: Path, html: Path) -> None:
    """UsageError where one of the things that are written would take another's place, or has no name."""
    if out.name in ("", ".."):
        raise UsageError(
            f"--out {out}: it names no folder of its own",
            why="the images lie in it, and their sheet beside it",
            fix="--out queries",
        )
    if str(html) == "-":
        raise UsageError("--html -: standard output has the scores", fix="guda report --html -")
    target = html.resolve()
    if target == _sheet(out).resolve() or target.is_relative_to(out.resolve()):
        raise UsageError(f"--html {html}: the drawn images are put there", fix="--html report.html")


def _project(session: Session, recipe: str | None) -> Project:
    from guda_cli.workflow.project.project import Project

    found, origin = session.recipe_and_source(recipe, default_digits=True)
    options = session.options
    project = Project(found, session.open_store(), session.console, wait=options.wait, jobs=options.jobs)
    project.family.check_start(project.recipe)
    groups = list(project.data.counts)
    if not session.options.dry_run and (recipe or session.options.recipe or session.current() is None):
        session.make_current(found, origin, groups)
    return project


def _check_memory(project: Project, count: int) -> None:
    """UsageError for more images than fit; the rest of the recipe is checked where it is trained."""
    from guda_cli.workflow.project import needs

    needs.check_images(project.recipe, count)


def _plan(session: Session, project: Project, method: str, count: int) -> Whole:
    from guda_cli.workflow.starting import whole

    return whole.plan(project, method, count, time_once(project, session.options.device))


def _train(session: Session, project: Project) -> TrainingCheck | None:
    """Train the full model; what its check says, where there is one."""
    from guda_cli.workflow.models.requested import train_all
    from guda_cli.workflow.project import training_check

    train_all(project, session.options.device, None, [None])
    found = training_check.current(project)
    if found:
        tell_training(session.console, found)
    return found


def _models(session: Session, project: Project, method: str) -> list[ActionRecord]:
    from guda_cli.workflow.models import requested

    device = session.options.device
    if method == "logo":
        removals = requested.to_retrain(project, [], each=True, null=False)
        return requested.train_all(project, device, removals, [None])
    chosen = requested.to_unlearn(project, [], every=True, null=True, dry=False)
    return requested.unlearn_all(project, device, chosen)


def _sheet(out: Path) -> Path:
    """Where all drawn images lie in one: beside their folder, as it is no query."""
    return out.with_name(f"{out.name}.png")


def _sample(session: Session, project: Project, count: int, out: Path, force: bool) -> list[str]:
    """Draw images into the folder `out`; their paths."""
    from guda_cli.workflow.models import drawing

    full = project.require_full()
    settings = drawing.usual(project, full, count)
    found, names, _ = draw(session, project, full, settings, out, force=force)
    write(_sheet(out), drawing.sheet(drawing.pixels_of(project, found)), fix="--out DIR", force=force)
    session.console.say(f"{plural(count, 'image', 'images')} in {out}, all of them in {_sheet(out)}")
    return [str(out / name) for name in names]


def _score(session: Session, project: Project, method: str, paths: list[str], top: int) -> list[QueryResult]:
    from guda_cli.workflow.scoring.counterfactual_run import Settings
    from guda_cli.workflow.scoring.dispatch import make_runs

    settings = Settings.of(project.recipe.score, method)
    [scoring] = make_runs(project, [method], settings, session.options.device)
    scoring.announce()
    printer = Printer(session.console, scoring, paths, top, many=True, csv=False, header=True)
    results = []
    for block in scoring.blocks(paths):
        for name, reason in block.bad:
            raise DataError(f"cannot read {name}", why=reason)
        printer.begin(block.results)
        for result in block.results:
            printer.show(result)
            results.append(result)
    session.console.say(scoring.summary())
    return results


def _summary(console: Console, done: dict[str, Any], groups: str, results: list[QueryResult]) -> None:
    """What was found, as the last document (`done`, with what the images add) and as four lines."""
    named = Counter(group for result in results for group in result.answer or ())
    images, standing = len(results), sum(bool(result.answer) for result in results)
    console.data({**done, "images": images, "named": standing, "groups_named": dict(named)})
    most = few([f"{group} ({times})" for group, times in named.most_common()], 3)
    check = done["training_check"]
    lines = [
        f"full model: check {check['verdict']}" if check else "full model: taken over",
        f"groups: {groups}",
        f"images: {standing} of {images} have a group that stands out"
        + (f"; most often {most}" if named else ""),
        f"report: {done['report']}   images: {done['folder']}   took {human_seconds(done['seconds'])}",
    ]
    console.out("", *lines)


def _refuse(trained: TrainingCheck | None, verdicts: Counter[str]) -> None:
    """CheckError where the full model or a group's did not pass."""
    bad = verdicts["failed"] + verdicts["doubtful"]
    model = trained.verdict if trained else "not checked"
    if bad or (trained and trained.verdict != "passed"):
        raise CheckError(
            f"full model: {model}; groups' checks: {counted(verdicts)}",
            why="with --strict that ends in an error",
            fix="guda check",
        )
