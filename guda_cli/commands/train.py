"""`guda train`: the full model, leave-one-group-out models, or a model taken over from diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from guda_cli.commands.common import join_launch, parse_seeds, say_done, show_plan
from guda_cli.errors import DataError, RecipeError, UsageError
from guda_cli.session import RecipeArgument, Session, command_options, complete_group

if TYPE_CHECKING:
    from guda_cli.workflow.keys.removal import Removal
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
        bool, typer.Option("--null", help="Also train without random sets, for z-values of `logo`.")
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="N,N,...",
            help="With --each-group or --without: train with these seeds instead of the recipe's, so that "
            "the oracle is independent of the full model.",
        ),
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
    from guda_cli.workflow.project.project import Project

    chief = join_launch(session)
    if source and (without or each_group or null):
        raise UsageError("--from is about the full model: it goes without --without, --each-group and --null")
    for name, given in (("--scheduler", scheduler), ("--as-is", as_is), ("--base", base)):
        if given and not source:
            raise UsageError(f"{name} goes with --from")
    if seeds and not (without or each_group or null):
        raise UsageError(
            "--seeds goes with --each-group or --without",
            why="the full model has the recipe's seed",
            fix="guda train --set train.seed=N trains another full model",
        )
    _check_paths(source, base=base, scheduler=scheduler)
    chosen: list[int | None] = [*parse_seeds(seeds)] if seeds else [None]
    found, origin = session.recipe_and_source(recipe, default_digits=True)
    project = Project(found, session.open_store(), session.console, wait=session.options.wait)
    fresh = bool(recipe or session.options.recipe) or session.current() is None
    leave_out = bool(without or each_group or null)
    _check_kind(found.model.text_conditional, base, scheduler)
    if session.options.dry_run:
        _dry_run(session, project, without or [], each_group, null, leave_out, chosen, source=source)
        return
    registers = bool(source) and (as_is or not found.model.text_conditional)
    if source:
        beside = base if found.model.text_conditional else scheduler
        project = _take_over(session, project, source, beside, registers=registers)
    _check_network(project)
    groups = list(project.data.counts)
    removals = _removals(project, without or [], each_group, null)
    if chief and (fresh or not leave_out):
        session.make_current(project.recipe, origin, groups)
    if not registers:
        _run(session, project, removals, leave_out, chosen)


def _check_paths(source: str | None, **beside: str | None) -> None:
    """DataError where what is given is neither there nor a hub id."""
    from pathlib import Path

    from guda_cli.checkpoints.files import is_hub_id

    for name, given in (("--from", source), *((f"--{name}", value) for name, value in beside.items())):
        if given and not Path(given).expanduser().exists() and not is_hub_id(given):
            raise DataError(
                f"no such file or folder: {given}",
                fix=f"{name} FOLDER, a .safetensors file or OWNER/MODEL (a hub id)",
            )


def _check_kind(text: bool, base: str | None, scheduler: str | None) -> None:
    """UsageError for what means nothing with this kind of recipe."""
    if text and scheduler:
        raise UsageError(
            "--scheduler goes with recipes whose models read no prompts",
            why="a text-to-image model has its noise schedule from its pipeline",
            fix="--base PIPELINE with that scheduler/ in it",
        )
    if not text and base:
        raise UsageError(
            "--base goes with text-to-image recipes",
            why="here the model that --from names is the full model, with all that it needs",
            fix="leave it out; --scheduler DIR names the noise schedule of a bare UNet",
        )


def _check_network(project: Project) -> None:
    """RecipeError where a text-to-image recipe leaves its network to `--from`, and that was not given."""
    model = project.recipe.model
    blocks = [*model.down_block_types, *model.up_block_types]
    if not model.text_conditional or model.base or model.registered:
        return
    if not any("CrossAttn" in block for block in blocks):
        raise RecipeError(
            f"recipe '{project.recipe.name}' needs a pipeline to start from",
            why="its model section has no block that reads text (CrossAttnDownBlock2D, CrossAttnUpBlock2D)",
            fix="guda train RECIPE --from PIPELINE (a StableDiffusionPipeline folder or a hub id)",
        )


def _removals(project: Project, without: list[str], each_group: bool, null: bool) -> list[Removal]:
    from guda_cli.workflow.keys import removal

    data = project.data
    names = list(data.counts) if each_group else []
    random = removal.nulls(data.counts, data.images, project.recipe.unlearn.null_groups) if null else []
    return removal.of_groups([*names, *without], data.counts) + random


def _dry_run(
    session: Session,
    project: Project,
    without: list[str],
    each: bool,
    null: bool,
    leave_out: bool,
    seeds: Sequence[int | None],
    *,
    source: str | None,
) -> None:
    from guda_cli.workflow.keys import removal
    from guda_cli.workflow.project.plan import TO_DO, Planner, Step

    planner = Planner(project)
    if source:  # what follows depends on what lies there
        steps = [planner.dataset(), Step("model", TO_DO, f"to be taken over from {source}")]
        show_plan(session, steps, f"plan: train {project.recipe.name}")
        return
    steps = [planner.dataset(), *planner.parts()]
    if leave_out:
        known = planner.data.counts if planner.data else {name.strip(): 1 for name in without}
        chosen = (planner.groups() if each else []) + removal.of_groups(without, known)
        removals = chosen + (planner.nulls() if null else [])
        steps += [step for seed in seeds for step in planner.models("logo", removals, seed)]
    else:
        steps.append(planner.full())
    show_plan(session, steps, f"plan: train {project.recipe.name}")


def _take_over(
    session: Session, project: Project, source: str, beside: str | None, *, registers: bool
) -> Project:
    """The project with the model at `source`; `beside` is the folder of its scheduler, or of its base."""
    from guda_cli.workflow.models import take_over_latent, take_over_pixels
    from guda_cli.workflow.project.project import Project

    if not registers:
        recipe = take_over_latent.start_from(project, source, beside)
        return Project(recipe, project.store, session.console, wait=project.wait)
    if project.recipe.model.text_conditional:
        record, recipe = take_over_latent.register(project, source, beside)
    else:
        record = take_over_pixels.register(project, source, beside)
        recipe = take_over_pixels.taken_over(project.recipe, record)
    session.console.say(f"registered {source} as the full model ({record.key[:10]})")
    _emit(session, [record.key], ran=0)
    return Project(recipe, project.store, session.console, wait=project.wait)


def _run(
    session: Session,
    project: Project,
    removals: list[Removal],
    leave_out: bool,
    seeds: Sequence[int | None],
) -> None:
    from guda_cli.workflow.models.jobs import LazyJobs
    from guda_cli.workflow.project.compute import setup

    jobs = LazyJobs(project, lambda: setup(session.options.device))
    jobs.prepare()
    if not leave_out:
        if project.recipe.model.registered:
            record = project.require_full()
        else:
            record = project.ensure(jobs.full())
        records = [record]
    else:
        full = project.known_full()
        records = [project.ensure(jobs.without(what, full, seed)) for seed in seeds for what in removals]
    say_done(session, len(project.ran & {r.key for r in records}), len(records), "train")
    _emit(session, [r.key for r in records], ran=len(project.ran & {r.key for r in records}))
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
