"""`guda unlearn`: one unlearned model a group, from the full model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guda_cli import completions
from guda_cli.commands.common import (
    counted,
    join_launch,
    open_project,
    parse_seeds,
    say_done,
    show_plan,
    verdicts_of,
    with_sets,
)
from guda_cli.errors import CheckError, UsageError
from guda_cli.phrases import few, plural
from guda_cli.session import GroupOption, Session, command_options
from guda_cli.tables import Column
from guda_cli.unlearning.catalog import help_text as operators_help

if TYPE_CHECKING:
    from guda_cli.workflow.keys.removal import Removal
    from guda_cli.workflow.project.model_record import StoredModel
    from guda_cli.workflow.project.project import Project

COLUMNS = (
    Column("group", cut=True),
    Column("images", right=True, drop=3),
    Column("check", wrap=True),
    Column("loss on it", right=True, drop=1),
    Column("after", right=True, drop=1),
    Column("on the rest", right=True, drop=2),
    Column("after", right=True, drop=2),
    Column("told apart", drop=4),
    Column("digest", drop=5),
)


@command_options(recipe=True, device=True, dry_run=True, wait=True, jobs=True)
def unlearn(
    session: Session,
    group: GroupOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every group of the data.")] = False,
    operator: Annotated[
        str | None,
        typer.Option(
            "--operator",
            autocompletion=completions.one_of(completions.operators),
            metavar="NAME",
            help=f"{operators_help()} [the recipe's].",
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
            autocompletion=completions.one_of(completions.PARAMS),
            metavar="SPEC",
            help="What is trained: full, attn, cross-attn-kv or lora:R [the recipe's].",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps a group [the recipe's].")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate [the recipe's].")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds", metavar="N,N,...", help="A model a group and seed, whose scores are averaged [one]."
        ),
    ] = None,
    coalitions: Annotated[
        int | None,
        typer.Option(
            "--coalitions",
            metavar="M",
            min=2,
            max=1000,
            help="Unlearn the groups named by --group in every combination, of more than 4 in those of M "
            "random permutations: for `guda score --shares`.",
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option("--null/--no-null", help="Also unlearn unlearn.null_groups random sets: a control."),
    ] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with code 7 where a check failed or is doubtful.")
    ] = False,
) -> None:
    """Unlearn groups from the full model; `a+b` unlearns two together.

    Every group sees the same images, timesteps and noise in the same order, and every unlearned model is
    checked: loss on the group up, loss on the rest kept; with data.held_out also on images that no training
    saw. The verdict is passed, doubtful or failed. Interrupted work is resumed; what the store has is reused.
    """
    from guda_cli.workflow.models.requested import to_unlearn, unlearn_all, unlearning_plan

    join_launch(session)
    if bool(group) == every:
        raise UsageError("name the groups to unlearn, or --all", fix="guda unlearn --all")
    given: dict[str, object] = {
        "operator": operator,
        "guard": guard,
        "params": params,
        "steps": steps,
        "lr": lr,
    }
    if seeds:
        given["seeds"] = parse_seeds(seeds)
    session = with_sets(session, *(f"unlearn.{k}={v}" for k, v in given.items() if v is not None))
    project, dry = open_project(session), session.options.dry_run
    if coalitions:
        chosen = _together(project, group or [], coalitions, dry=dry)
    else:
        chosen = to_unlearn(project, group or [], every=every, null=null, dry=dry)
    if dry:
        show_plan(session, unlearning_plan(project, chosen), "plan: unlearn")
        return
    records = unlearn_all(project, session.options.device, chosen)
    ran = len(project.ran & {record.key for record in records})
    models = [project.model(record) for record in records]
    _print(session, models, ran)
    verdicts = verdicts_of(models)
    say_done(session, ran, len(records), "unlearn", verdicts)
    if strict:
        _refuse(verdicts)


def _together(project: Project, groups: list[str], count: int, *, dry: bool) -> list[Removal]:
    """The coalitions of `groups`, noted as such."""
    from guda_cli.workflow.models.requested import to_unlearn_together
    from guda_cli.workflow.project import designs

    if not groups:
        raise UsageError("--coalitions needs the groups that share", fix="--coalitions 8 --group A --group B")
    project.require_full()
    chosen = to_unlearn_together(project, groups, count)
    if not dry:
        designs.note(project, designs.COALITIONS, [what for what in chosen if len(what.groups) > 1])
    return chosen


def _refuse(verdicts: Counter[str]) -> None:
    """CheckError where one of the models did not pass."""
    if verdicts["failed"] or verdicts["doubtful"]:
        raise CheckError(
            f"checks: {counted(verdicts)}",
            why="the table says what each is for; with --strict that ends in an error",
            fix="guda tune",
        )


def _print(session: Session, made: list[StoredModel], ran: int) -> None:
    rows, models, unseen = [], [], []
    for model in made:
        what, check, seen = model.removal, model.check, model.record.provenance
        assert what is not None
        assert check is not None
        removed = seen["images_removed"]
        verdict = check["verdict"]
        if verdict != "passed":
            verdict = f"{verdict.upper() if verdict == 'failed' else verdict}: {check['why']}"
        if what.is_null:
            verdict = "null"  # a random set is not expected to be forgotten
        drawn = seen.get("drawn")
        if drawn == 0 and not what.is_null:
            unseen.append(what.short)
            if verdict == "passed":
                verdict = f"passed: {check['why']}"
        loss = [check[side] for side in ("group_before", "group_after", "rest_before", "rest_after")]
        rows.append((what.short, removed, verdict, *loss, _told_apart(check), model.weights[:10]))
        models.append(
            {
                "group": what.name,
                "null": what.is_null,
                "images": removed,
                "drawn": drawn,
                "check": check,
                "key": model.key,
                "weights": model.weights,
                "seconds": seen["wall_seconds"],
            }
        )
    session.console.data({"schema": "guda.unlearn/1", "ran": ran, "models": models})
    columns = list(COLUMNS)
    if not any(model.check and "membership" in model.check for model in made):
        columns.pop(-2)
        rows = [(*row[:-2], row[-1]) for row in rows]
    shown, more = session.console.fold(rows, lambda row: row[2] not in ("passed", "null"))
    session.console.out(session.console.table(columns, shown))
    if more:
        session.console.prose(more)
    if unseen:
        steps = made[0].record.params["unlearn"]["steps"]
        session.console.warn(
            f"no batch of {plural(steps, 'step', 'steps')} showed an image of {few(unseen)}: "
            "nothing was forgotten there; more --steps, or --set unlearn.forget_share=0.25 where that counts"
        )


def _told_apart(check: Mapping[str, Any]) -> str:
    """How well the group's training images are told from held-out ones (area under the curve)."""
    found = check.get("membership")
    return f"{found['before']:.2f} → {found['after']:.2f} ± {found['after_se']:.2f}" if found else "–"
