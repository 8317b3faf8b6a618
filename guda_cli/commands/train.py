"""`guda train`: the full model, leave-one-group-out models, or a model taken over from diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guda_cli.commands.common import (
    LARGEST_SEED,
    join_launch,
    keep_out_of_data,
    parse_seeds,
    say_done,
    show_plan,
    time_once,
)
from guda_cli.errors import CheckError, UsageError
from guda_cli.outfile import PICTURE, write
from guda_cli.outfile import check as check_out
from guda_cli.session import ForceOption, RecipeArgument, Session, command_options, complete_group

if TYPE_CHECKING:
    from guda_cli.console import Console
    from guda_cli.store import ActionRecord
    from guda_cli.training.soundness import TrainingCheck
    from guda_cli.workflow.models.take_over import Source
    from guda_cli.workflow.project.project import Project


@command_options(recipe=True, device=True, dry_run=True, wait=True, jobs=True)
def train(
    session: Session,
    recipe: RecipeArgument = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="GROUP",
            help="Train without this group (a+b: without both); repeat for more.",
            autocompletion=complete_group,
        ),
    ] = None,
    each_group: Annotated[bool, typer.Option("--each-group", help="Train once without each group.")] = False,
    null: Annotated[
        bool, typer.Option("--null", help="Also train without unlearn.null_groups random sets: a control.")
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="N,N,...",
            help="With --each-group, --without or --subsets: train with these seeds instead of the recipe's, "
            "so that the oracle is independent of the full model.",
        ),
    ] = None,
    subsets: Annotated[
        int | None,
        typer.Option(
            "--subsets",
            metavar="M",
            min=2,
            help="Train without each of M random halves of the groups (16, say), by which `guda report "
            "--against logo` judges sums of scores.",
        ),
    ] = None,
    subset_seed: Annotated[
        int | None,
        typer.Option(
            "--subset-seed", metavar="N", min=0, max=LARGEST_SEED, help="The halves are drawn by it [0]."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DIR|HUB_ID",
            help="A model of yours. Text-to-image recipes: training starts from it (a pipeline of Stable "
            "Diffusion, SDXL, SD 3, FLUX.1, Z-Image or Qwen-Image, or a .safetensors checkpoint). Others: it "
            "is the full model (DDPMPipeline folder, or UNet2DModel folder with its scheduler given).",
        ),
    ] = None,
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is",
            help="With --from and a model on latents: the model was trained on these images, take it as "
            "the full model (also a network's folder or a LoRA over --base).",
        ),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="DIR|HUB_ID",
            help="With --from: the pipeline that a network, a LoRA or a single file belongs to; with --as-is "
            "also where leave-one-group-out models start.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="DIR",
            help="With --from: folder of the scheduler_config.json of a bare UNet.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", metavar="FILE.png", help="Draw 16 samples of the full model, as a sheet."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="End with code 7 where the full model's check has not passed."),
    ] = False,
    force: ForceOption = False,
) -> None:
    """Train the full model and make the recipe current for this store.

    Without RECIPE the current one is used, or `digits` where nothing is current. Training is resumed where
    it was interrupted; a model that the store has is not trained again. The full model is checked: its loss
    by band of noise, beside those of the untrained network and of the mean image.
    """
    from guda_cli.families.known import family_of
    from guda_cli.workflow.models import requested
    from guda_cli.workflow.models.take_over import Source
    from guda_cli.workflow.project import designs
    from guda_cli.workflow.project.project import Project

    chief, leave_out = join_launch(session), bool(without or each_group or null or subsets)
    if subset_seed is not None and not subsets:
        raise UsageError("--subset-seed goes with --subsets")
    drawn = (subsets, subset_seed or 0) if subsets else None
    if sheet is not None:
        check_out(sheet, fix="--sheet FILE.png", force=force, kind=PICTURE)  # before any work
    _check_together(leave_out, source, seeds, {"--scheduler": scheduler, "--as-is": as_is, "--base": base})
    given = Source(source, base, scheduler, as_is) if source else None
    chosen: list[int | None] = [*parse_seeds(seeds)] if seeds else [None]
    found, origin = session.recipe_and_source(recipe, default_digits=True)
    if given:
        found = given.recipe_for(found)
        given.check(family_of(found))
    if sheet is not None:
        keep_out_of_data(found.data, sheet, "--sheet")
    options = session.options
    project = Project(found, session.open_store(), session.console, wait=options.wait, jobs=options.jobs)
    fresh = bool(recipe or session.options.recipe) or session.current() is None
    if session.options.dry_run:
        if not source and not session.store_path.exists():
            _ = project.data  # into the folder that ends with this run: their number is what a plan needs
        time_once(project, session.options.device)
        steps = requested.training_plan(
            project, without or [], each=each_group, null=null, seeds=chosen, source=source, subsets=drawn
        )
        show_plan(session, steps, f"plan: train {project.recipe.name}")
        return
    registers = given is not None and given.registers(project.family)
    if given:
        project = _take_over(session, project, given, registers=registers)
    project.family.check_start(project.recipe)
    groups = list(project.data.counts)
    removals = requested.to_retrain(project, without or [], each=each_group, null=null)
    halves = requested.halves(project, *drawn) if drawn else []
    removals += [what for what in halves if what not in removals]
    if chief and (fresh or not leave_out):
        session.make_current(project.recipe, origin, groups)
    if chief and halves:
        designs.note(project, designs.SUBSETS, halves)
    if not registers:
        wanted = removals if leave_out else None
        _show(session, project, requested.train_all(project, session.options.device, wanted, chosen))
    if chief and sheet is not None:
        from guda_cli.workflow.models.drawing import sample_sheet

        write(sheet, sample_sheet(project, session.options.device), fix="--sheet FILE.png", force=force)
        session.console.say(f"samples: {sheet}")
    if chief and strict and not leave_out:
        _refuse(project)


def _check_together(
    leave_out: bool, source: str | None, seeds: str | None, with_source: dict[str, str | bool | None]
) -> None:
    """UsageError for options that do not go together."""
    if source and leave_out:
        raise UsageError(
            "--from is about the full model: it goes without --without, --each-group, --null and --subsets"
        )
    for name, given in with_source.items():
        if given and not source:
            raise UsageError(f"{name} goes with --from")
    if seeds and not leave_out:
        raise UsageError(
            "--seeds goes with --each-group, --without or --subsets",
            why="the full model has the recipe's seed; with another it is another full model",
            fix="guda train --set train.seed=1",
        )


def _take_over(session: Session, project: Project, source: Source, *, registers: bool) -> Project:
    """The project with the model at `source`."""
    from guda_cli.workflow.models import take_over

    if not registers:
        recipe = take_over.start_from(project, source)
    else:
        record, recipe = take_over.register(project, source)
        session.console.say(f"registered {source.model} as the full model ({record.key[:10]})")
        _emit(session, [record.key], None, ran=0)
    return project.of_recipe(recipe)


def _show(session: Session, project: Project, records: list[ActionRecord]) -> None:
    from guda_cli.workflow.project import training_check

    ran = len(project.ran & {r.key for r in records})
    say_done(session, ran, len(records), "train")
    found = training_check.current(project) if records == [project.known_full()] else None
    _emit(session, [r.key for r in records], found, ran=ran)
    for record in records:
        name = str(record.provenance.get("what", record.operation))
        session.console.out(f"{record.outputs['weights']}  {name}")
    if found:
        tell_training(session.console, found)


def tell_training(console: Console, found: TrainingCheck) -> None:
    """The verdict on a full model, with its losses where there is something against it."""
    from guda_cli.training.soundness import PASSED

    if found.verdict == PASSED:
        console.say(f"check of the full model passed: {found.why}")
        return
    console.warn(f"{found.sentence}; train longer (--set train.steps=N)")
    rows = [
        (
            f"{band.first} to {band.last}",
            band.trained,
            band.mean,
            band.untrained,
            "yes" if band.learnt else "no",
        )
        for band in found.bands
    ]
    columns = ["timesteps", "loss", "of the mean image", "untrained", "learnt"]
    console.out(console.table(columns, rows, caption="From little noise to much; per pixel."))


def _refuse(project: Project) -> None:
    """CheckError where the full model did not pass."""
    from guda_cli.sections import total_steps
    from guda_cli.training.soundness import PASSED
    from guda_cli.workflow.project import training_check

    found, steps = training_check.current(project), total_steps(project.recipe.train, project.data.images)
    if found and found.verdict != PASSED:
        raise CheckError(
            f"the check of the full model: {found.verdict}",
            why=found.why,
            fix=f"guda train --set train.steps={2 * steps}",
        )


def _emit(session: Session, keys: list[str], found: TrainingCheck | None, *, ran: int) -> None:
    store = session.open_store()
    records = [record for key in keys if (record := store.lookup(key))]
    session.console.data(
        {
            "schema": "guda.train/1",
            "ran": ran,
            "models": [
                {
                    "what": r.provenance.get("what"),
                    "key": r.key,
                    "weights": r.outputs["weights"],
                    "seconds": r.provenance.get("wall_seconds"),
                    "forwards": r.provenance.get("forwards"),
                }
                for r in records
            ],
            "check": found.to_dict() if found else None,
        }
    )
