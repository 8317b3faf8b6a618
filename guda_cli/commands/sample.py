"""`guda sample`: query images from the full model, or from a model that never saw a group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli import completions
from guda_cli.commands.common import LARGEST_SEED, keep_out_of_data, open_project, show_plan
from guda_cli.errors import UsageError
from guda_cli.outfile import DOCUMENT, DRAWN, check, is_ours, write
from guda_cli.phrases import plural
from guda_cli.session import ForceOption, Session, command_options, complete_group

if TYPE_CHECKING:
    from guda_cli.store import ActionRecord
    from guda_cli.workflow.models.drawing import Settings
    from guda_cli.workflow.project.project import Project

MANIFEST = "samples.json"
ELSEWHERE = "--out FOLDER"


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
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            autocompletion=completions.one_of(("guda", "logo")),
            help="With --without: guda or logo.",
        ),
    ] = "guda",
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            metavar="NAME",
            autocompletion=completions.one_of(completions.SAMPLERS),
            help="ddim or ddpm [the recipe's].",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Sampling steps [the recipe's].")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, max=LARGEST_SEED, help="Seed; image i depends on it and on i [the recipe's]."
        ),
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
    force: ForceOption = False,
) -> None:
    """Draw images. The same seed gives the same images, however many are asked for, from any model."""
    from guda_cli.workflow.models import drawing
    from guda_cli.workflow.project.plan import Planner, Step, forward_seconds, timed

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
        drawn = timed([step], forward_seconds(project, full))
        show_plan(session, [Planner(project).full(), *drawn], "plan: sample")
        return
    found, names, note = draw(session, project, record, settings, out, without=without, force=force)
    ran = found.key in project.ran
    session.console.data(
        {**note, "schema": "guda.sample/1", "ran": int(ran), "folder": str(out), "key": found.key}
    )
    session.console.out(
        f"{plural(len(names), 'image', 'images')} in {out}" + ("" if ran else " (from the store)")
    )


def draw(
    session: Session,
    project: Project,
    record: ActionRecord,
    settings: Settings,
    out: Path,
    *,
    without: str | None = None,
    force: bool = False,
) -> tuple[ActionRecord, list[str], dict[str, Any]]:
    """Draw from the model of `record` into the folder `out`: the sampling, the files' names, the manifest."""
    from guda_cli.workflow.models import drawing

    full, names = project.require_full(), _names(without, settings)
    keep_out_of_data(project.recipe.data, out, "--out")
    for name in (*names, MANIFEST):
        kind = DOCUMENT if name == MANIFEST else DRAWN
        check(out / name, fix=ELSEWHERE, force=force, kind=kind)  # before any work
    found = drawing.sample(project, full, record, settings, session.options.device)
    for name, image in zip(names, drawing.images(project, found, settings), strict=True):
        write(out / name, image, fix=ELSEWHERE, force=force)
    unseen = drawing.unseen_classes(project.model(record), settings)
    if unseen:
        session.console.say(f"this model was trained without any image of class {', '.join(unseen)}")
    note = {
        "schema": "guda.samples/1",
        "images": names,
        "model": record.outputs["weights"],
        "without": without,
        "sampler": settings.sampler,
        "steps": settings.steps,
        "seed": settings.seed,
        "recipe": project.recipe.name,
    } | _conditions(settings)
    _write_manifest(session, out, note, force)
    return found, names, note


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


def _names(without: str | None, settings: Settings) -> list[str]:
    """What the images' files are called."""
    prefix = f"without-{without.replace('/', '_')}-" if without else ""
    classes = [settings.condition_of(i) if settings.classes else None for i in range(settings.count)]
    ends = ["" if name is None else f"-{name.replace('/', '_')[:60]}" for name in classes]
    return [f"{prefix}{i:05d}{end}.png" for i, end in enumerate(ends)]


def _write_manifest(session: Session, out: Path, note: dict[str, Any], force: bool) -> None:
    """What lies in the folder, by whom and how drawn.

    More images of the same drawing from before are as good as new, and stay listed; of others it is said that
    they are still there.
    """
    path = out / MANIFEST
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and is_ours(path) else {}
    before = [name for name in old.get("images", ()) if (out / str(name)).is_file()]
    more = [name for name in before if name not in set(note["images"])]
    if more and _goes_on(old, note) and len(before) == len(old["images"]):
        note = {**old, "schema": note["schema"]}
    elif more:
        shown = plural(len(more), "image of an earlier drawing is", "images of an earlier drawing are")
        session.console.warn(f"{shown} still in {out}: {more[0]}" + (" and on" if len(more) > 1 else ""))
    write(path, json.dumps(note, indent=2) + "\n", fix=ELSEWHERE, force=force)


def _goes_on(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the drawing of manifest `old` is that of `new` with more images."""
    lists = {"images", "prompts", "classes"}
    same = all(old.get(key) == new.get(key) for key in (old.keys() | new.keys()) - lists - {"schema"})
    return same and all(old.get(key, [])[: len(new["images"])] == new.get(key, []) for key in lists)
