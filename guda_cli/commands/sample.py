"""`guda sample`: query images from the full model, or from a model that never saw a group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli.commands.common import open_project, show_plan
from guda_cli.errors import UsageError
from guda_cli.outfile import write
from guda_cli.session import Session, command_options, complete_group

if TYPE_CHECKING:
    from guda_cli.store import ActionRecord
    from guda_cli.workflow.models.drawing import Settings
    from guda_cli.workflow.project.project import Project


@command_options(recipe=True, device=True, dry_run=True, wait=True)
def sample(
    session: Session,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the images.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many images.")] = 16,
    without: Annotated[
        str | None,
        typer.Option(
            "--without",
            metavar="GROUP",
            help="From the model without this group.",
            autocompletion=complete_group,
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="With --without: guda or logo.")] = "guda",
    sampler: Annotated[str | None, typer.Option("--sampler", help="ddim or ddpm [the recipe's].")] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Sampling steps [the recipe's].")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed; image i depends on it and on i [the recipe's].")
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Class-conditional models: images of this class; repeat for several, in turn [all].",
            autocompletion=complete_group,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="Text-to-image models: what to draw; repeat for several, in turn [prompts of training "
            "images, of each group in turn].",
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            metavar="W",
            min=0,
            help="Classifier-free guidance towards the class or prompt [the recipe's; 1: none].",
        ),
    ] = None,
) -> None:
    """Draw images. The same seed gives the same images, however many are asked for, from any model."""
    from guda_cli.workflow.models import drawing
    from guda_cli.workflow.project.plan import Planner, Step

    project = open_project(session)
    full = project.require_full()
    record = _without(project, method, without) if without else full
    spec = project.recipe.sample
    settings = drawing.Settings(
        count, sampler or spec.sampler, steps or spec.steps, spec.seed if seed is None else seed
    )
    if settings.sampler not in ("ddim", "ddpm"):
        raise UsageError(f"unknown sampler '{settings.sampler}'", why="it is one of ddim, ddpm")
    settings = drawing.conditioned(project, full, settings, classes=class_, prompts=prompt, guidance=guidance)
    action = drawing.action(full, record, settings)
    if session.options.dry_run:
        status = "cached" if project.store.lookup(action.key) else "to do"
        step = Step(action.what, status, "", action.key, action.forwards, None, "guda sample")
        show_plan(session, [Planner(project).full(), step], "plan: sample")
        return
    found = drawing.sample(project, full, record, settings, session.options.device)
    names = _write(out, drawing.images(project, found, settings), without, settings)
    unseen = drawing.unseen_classes(project.model(record), settings)
    if unseen:
        session.console.say(f"this model was trained without any image of class {', '.join(unseen)}")
    ran = found.key in project.ran
    note = {
        "images": names,
        "model": record.outputs["weights"],
        "without": without,
        "sampler": settings.sampler,
        "steps": settings.steps,
        "seed": settings.seed,
        "recipe": project.recipe.name,
    } | _conditions(settings)
    write(out / "samples.json", (json.dumps(note, indent=2) + "\n").encode(), fix="--out FOLDER")
    session.console.data(
        {"schema": "guda.sample/1", "ran": int(ran), "folder": str(out), "key": found.key, **note}
    )
    session.console.out(f"{len(names)} images in {out}" + ("" if ran else " (from the store)"))


def _without(project: Project, method: str, group: str) -> ActionRecord:
    """The model without `group`; the first seed's where there are several."""
    from guda_cli.workflow.keys import removal
    from guda_cli.workflow.scoring import counterfactuals

    [what] = removal.of_groups([group], project.data.counts)
    return counterfactuals.find(project, method, (group,)).groups[what][0].record


def _conditions(settings: Settings) -> dict[str, Any]:
    """What the note says of each image's class or prompt."""
    if not (settings.classes or settings.prompts):
        return {}
    names = [settings.condition_of(i) for i in range(settings.count)]
    return {"prompts" if settings.prompts else "classes": names, "guidance": settings.guidance}


def _write(out: Path, images: list[bytes], without: str | None, settings: Settings) -> list[str]:
    prefix = f"without-{without.replace('/', '_')}-" if without else ""
    classes = [settings.condition_of(i) if settings.classes else None for i in range(settings.count)]
    ends = ["" if name is None else f"-{name.replace('/', '_')[:60]}" for name in classes]
    names = [f"{prefix}{i:05d}{end}.png" for i, end in enumerate(ends)]
    for name, data in zip(names, images, strict=True):
        write(out / name, data, fix="--out FOLDER")
    return names
