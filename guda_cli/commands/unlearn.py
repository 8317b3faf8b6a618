"""`guda unlearn`: one unlearned model a group, from the full model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli.commands.common import join_launch, open_project, say_done, show_plan, with_sets
from guda_cli.errors import UsageError
from guda_cli.session import GroupOption, Session, command_options

if TYPE_CHECKING:
    from guda_cli.store import ActionRecord
    from guda_cli.workflow.keys.removal import Removal
    from guda_cli.workflow.project.project import Project


@command_options(recipe=True, device=True, dry_run=True, wait=True)
def unlearn(
    session: Session,
    group: GroupOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every group of the data.")] = False,
    operator: Annotated[
        str | None,
        typer.Option(
            "--operator",
            metavar="NAME",
            help="retrack, esd, erasediff, siss, neggrad or finetune; for text-to-image models also "
            "anchor:awss, anchor:uniform, anchor:style-removed or anchor:matched [the recipe's].",
        ),
    ] = None,
    guard: Annotated[
        bool | None,
        typer.Option("--guard/--no-guard", help="Forget least what the other images need [the recipe's]."),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            metavar="SPEC",
            help="What is trained: full, attn, cross-attn-kv or lora:R [the recipe's].",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps a group [the recipe's].")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate [the recipe's].")] = None,
    null: Annotated[
        bool, typer.Option("--null/--no-null", help="Also unlearn random sets of like size, for z-values.")
    ] = True,
) -> None:
    """Unlearn groups from the full model; `a+b` unlearns two together.

    Every group sees the same images, timesteps and noise in the same order, and every unlearned model is
    checked: loss on the group up, loss on the rest kept. Interrupted work is resumed; what the store has is
    reused.
    """
    from guda_cli.workflow.keys import removal

    join_launch(session)
    if bool(group) == every:
        raise UsageError("name the groups to unlearn, or --all", fix="guda unlearn --all")
    given = {"operator": operator, "guard": guard, "params": params, "steps": steps, "lr": lr}
    session = with_sets(session, *(f"unlearn.{k}={v}" for k, v in given.items() if v is not None))
    project = open_project(session)
    counts = _counts(project, session.options.dry_run)
    chosen = removal.of_groups(list(counts) if every else list(group or []), counts)
    _check(project, chosen)
    if null:
        images = project.data.images if counts else 0
        each = project.recipe.unlearn.null_groups
        chosen += removal.nulls(counts, images, each, match=chosen) if images else []
    if session.options.dry_run:
        from guda_cli.workflow.project.plan import Planner

        planner = Planner(project)
        show_plan(session, [planner.full(), *planner.models("guda", chosen)], "plan: unlearn")
        return
    _run(session, project, chosen)


def _check(project: Project, chosen: list[Removal]) -> None:
    """What the operator cannot do with this model, or without these groups, is an error before any work."""
    from guda_cli.training import distributed
    from guda_cli.unlearning import catalog
    from guda_cli.workflow.models.text_problem import styles

    model, spec = project.recipe.model, project.recipe.unlearn
    catalog.check_parts(spec, project.recipe.train.gradient_accumulation * distributed.world())
    needed = model.text_conditional and spec.operator in catalog.NEED_STYLES
    own = styles(project) if needed and project.known_data() else None
    network = _network(project)
    for removed in [what.groups for what in chosen] or [()]:
        catalog.check(
            spec,
            network,
            conditional=model.class_conditional,
            text=model.text_conditional,
            styles=own,
            removed=removed,
        )


def _network(project: Project) -> dict[str, Any]:
    """The full model's configuration, or while there is none that of the recipe."""
    import json

    from guda_cli.sections import to_dict

    full = project.known_full()
    if full is not None:
        return dict(json.loads(project.read(full, "config"))["unet"])
    return to_dict(project.recipe.model) | {"null_class": _dropout(project) > 0}


def _dropout(project: Project) -> float:
    recipe = project.recipe
    return recipe.train.prompt_dropout if recipe.model.text_conditional else recipe.train.class_dropout


def _counts(project: Project, dry_run: bool) -> dict[str, int]:
    known = project.known_data()
    if known is None and dry_run:
        return {}
    if known is None:
        project.require_full()
    return dict(project.data.counts)


def _run(session: Session, project: Project, chosen: list[Removal]) -> None:
    from guda_cli.workflow.models.jobs import LazyJobs
    from guda_cli.workflow.project.compute import setup

    full = project.require_full()
    jobs = LazyJobs(project, lambda: setup(session.options.device))
    if not project.recipe.model.registered:
        jobs.full()  # so that a damaged full model can be rebuilt
    pairs: list[tuple[Removal, ActionRecord]] = []
    with session.console.progress("unlearn", len(chosen), unit="group") as bar:
        for what in chosen:
            pairs.append((what, project.ensure(jobs.unlearned(what, full))))
            bar.advance(1)
    ran = len(project.ran & {record.key for _, record in pairs})
    _print(session, pairs, ran)
    say_done(session, ran, len(pairs), "unlearn")


def _print(session: Session, pairs: list[tuple[Removal, ActionRecord]], ran: int) -> None:
    rows, models = [], []
    for what, record in pairs:
        check, removed = record.provenance["check"], record.provenance["images_removed"]
        verdict = "passed" if check["passed"] else "FAILED: " + check["why"]
        if what.is_null:
            verdict = "null"  # a random set is not expected to be forgotten
        loss = [check[side] for side in ("group_before", "group_after", "rest_before", "rest_after")]
        rows.append((what.name, removed, *loss, verdict, record.outputs["weights"][:10]))
        models.append(
            {
                "group": what.name,
                "null": what.is_null,
                "images": removed,
                "check": check,
                "key": record.key,
                "weights": record.outputs["weights"],
                "seconds": record.provenance["wall_seconds"],
            }
        )
    session.console.data({"schema": "guda.unlearn/1", "ran": ran, "models": models})
    columns = ["group", "images", "loss on it", "after", "loss on the rest", "after", "check", "digest"]
    session.console.out(session.console.table(columns, rows))
