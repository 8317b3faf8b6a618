"""`guda train`: the full model, leave-one-group-out models, or a model taken over from diffusers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from guda_cli.commands.common import join_launch, parse_seeds, say_done, show_plan
from guda_cli.errors import UsageError
from guda_cli.session import RecipeArgument, Session, command_options, complete_group

if TYPE_CHECKING:
    from guda_cli.store import ActionRecord
    from guda_cli.workflow.models.take_over import Source
    from guda_cli.workflow.project.project import Project


@command_options(recipe=True, device=True, dry_run=True, wait=True)
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
        int | None, typer.Option("--subset-seed", metavar="N", help="The halves are drawn by it [0].")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DIR|HUB_ID",
            help="A model of yours. Text-to-image recipes: training starts from it (StableDiffusionPipeline "
            "folder or .safetensors checkpoint). Others: it is the full model (DDPMPipeline folder, or "
            "UNet2DModel folder with its scheduler given).",
        ),
    ] = None,
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is",
            help="With --from and a text-to-image recipe: the model was trained on these images, take it as "
            "the full model (also a UNet folder or a LoRA over --base).",
        ),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="DIR|HUB_ID",
            help="With --from: the pipeline that a UNet, a LoRA or a single file belongs to; with --as-is "
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
) -> None:
    """Train the full model and make the recipe current for this store.

    Without RECIPE the current one is used, or `digits` where nothing is current. Training is resumed where
    it was interrupted; a model that the store has is not trained again.
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
    _check_together(leave_out, source, seeds, {"--scheduler": scheduler, "--as-is": as_is, "--base": base})
    given = Source(source, base, scheduler, as_is) if source else None
    chosen: list[int | None] = [*parse_seeds(seeds)] if seeds else [None]
    found, origin = session.recipe_and_source(recipe, default_digits=True)
    if given:
        given.check(family_of(found))
    project = Project(found, session.open_store(), session.console, wait=session.options.wait)
    fresh = bool(recipe or session.options.recipe) or session.current() is None
    if session.options.dry_run:
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
    from guda_cli.workflow.project.project import Project

    if not registers:
        recipe = take_over.start_from(project, source)
    else:
        record, recipe = take_over.register(project, source)
        session.console.say(f"registered {source.model} as the full model ({record.key[:10]})")
        _emit(session, [record.key], ran=0)
    return Project(recipe, project.store, session.console, wait=project.wait)


def _show(session: Session, project: Project, records: list[ActionRecord]) -> None:
    ran = len(project.ran & {r.key for r in records})
    say_done(session, ran, len(records), "train")
    _emit(session, [r.key for r in records], ran=ran)
    for record in records:
        name = str(record.provenance.get("what", record.operation))
        session.console.out(f"{record.outputs['weights']}  {name}")


def _emit(session: Session, keys: list[str], *, ran: int) -> None:
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
        }
    )
