"""`guda tune`: good unlearning settings for the price of two or three retrainings."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guda_cli import completions
from guda_cli.commands.common import LARGEST_SEED, open_project, parse_seeds, show_plan, with_sets
from guda_cli.outfile import RECIPE, check, write
from guda_cli.phrases import human_seconds, plural
from guda_cli.session import ForceOption, GroupOption, Session, command_options

if TYPE_CHECKING:
    from guda_cli.workflow.judging.search import Outcome


@command_options(recipe=True, device=True, dry_run=True, wait=True, jobs=True)
def tune(
    session: Session,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE|DIR|GLOB|-", help="Images to tune on [drawn from the full model]."),
    ] = None,
    group: GroupOption = None,
    held_out: Annotated[
        int,
        typer.Option("--held-out", metavar="N", min=1, help="How many groups to tune on, drawn at random."),
    ] = 3,
    count: Annotated[int, typer.Option("-n", min=8, help="Images drawn from the full model.")] = 128,
    operator: Annotated[
        str | None,
        typer.Option(
            "--operator",
            autocompletion=completions.one_of(completions.operators),
            metavar="NAME",
            help="Tune this operator [the recipe's].",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Settings tried at most, the recipe's own first.")
    ] = 12,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            autocompletion=completions.tuned,
            metavar="unlearn.KEY=V,V,...",
            help="Values to try instead of the built-in ones; repeat.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="N,N,...", help="Seeds of the held-out groups' oracle [one]."),
    ] = None,
    weighting: Annotated[
        str | None,
        typer.Option(
            "--weighting",
            metavar="NAME",
            autocompletion=completions.one_of(completions.WEIGHTINGS),
            help="Of the scores compared [the recipe's].",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the recipe with the chosen settings.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Of held-out groups, trials and halves.")
    ] = 0,
    force: ForceOption = False,
) -> None:
    """Choose unlearning settings by the oracle of a few held-out groups.

    The full model is retrained without each of a few groups; every setting is judged by how its scores of
    these groups go with the retrained models' over one half of the images, and shown on the other half. The
    cheapest setting within one standard error of the best is chosen, of equally cheap ones the gentlest
    (learning rate times forget weight). The groups tuned on are left out of `guda report --against logo`.
    Interrupted work is resumed.
    """
    from guda_cli.data.queries import expand
    from guda_cli.workflow.judging import search
    from guda_cli.workflow.judging.candidates import candidates, parse_space

    if operator:
        session = with_sets(session, f"unlearn.operator={operator}")
    project = open_project(session)
    values = parse_space(space or [])
    groups = list(group or ()) or search.held_out(project.data.counts, held_out, seed)
    chosen = weighting or project.recipe.score.weighting
    tuner = search.Tuner(project, session.options.device, groups, parse_seeds(seeds) if seeds else (), chosen)
    tried = candidates(project.recipe, trials, seed, values, tuner.check)
    if out is not None:
        check(out, fix="--out FILE", force=force, kind=RECIPE)
    if session.options.dry_run:
        show_plan(session, tuner.plan(tried), "plan: tune")
        return
    paths = expand(images, sys.stdin, session.console.say) if images else []
    queries = tuner.images(paths, count)
    oracle_seed = ", ".join(map(str, tuner.seeds))
    session.console.say(
        f"tuning on {', '.join(groups)} (oracle seed {oracle_seed}), "
        f"{plural(len(queries), 'image', 'images')}"
    )
    outcome = search.tune(tuner, tried, queries, seed)
    if out is not None:
        _write(out, outcome, force)
        session.console.say(f"recipe: {out}")
    _show(session, outcome, operator)


def _write(path: Path, outcome: Outcome, force: bool) -> None:
    from guda_cli.settings.reading import dump

    head = (
        f"# Unlearning settings chosen by guda tune on {', '.join(outcome.groups)}"
        f" (oracle seed {', '.join(map(str, outcome.seeds))}).\n"
    )
    write(path, head + dump(outcome.recipe), fix="--out FILE", force=force)


def _show(session: Session, outcome: Outcome, operator: str | None) -> None:
    from guda_cli.workflow.judging.search import Trial

    console = session.console
    console.data(
        {
            "schema": "guda.tune/1",
            "groups": outcome.groups,
            "seeds": outcome.seeds,
            "queries": outcome.queries,
            "weighting": outcome.weighting,
            "oracle_reliability": outcome.reliability,
            "chosen": outcome.chosen,
            "changes": outcome.changes,
            "trials": [dataclasses.asdict(trial) for trial in outcome.trials],
        }
    )
    varied = _varied([trial.settings for trial in outcome.trials])

    def row(i: int, trial: Trial) -> tuple[str, ...]:
        verdict = trial.verdict
        mark = "chosen" if i == outcome.chosen else "near the best" if verdict.near_best else ""
        values = [str(trial.settings.get(name, "–")) for name in varied]
        behind = f"{-verdict.behind:+.3f} ± {verdict.error:.3f}" if verdict.behind else "best"
        cost = f"{trial.forwards:,.0f}"
        return (
            *values, f"{verdict.tuned_on:.3f}", behind, f"{verdict.shown:.3f}", cost,
            human_seconds(trial.seconds), mark,
        )  # fmt: skip

    order = sorted(range(len(outcome.trials)), key=lambda i: -outcome.trials[i].verdict.tuned_on)
    rows = [row(i, outcome.trials[i]) for i in order]
    columns = [*varied, "tuned half", "behind", "other half", "forwards", "time", ""]
    title = (
        f"correlation with the oracle of {', '.join(outcome.groups)} over the images,"
        f" {outcome.weighting}; forwards and time for all groups"
    )
    console.out(console.table(columns, rows, title=title, right=columns[:-1]))
    best = outcome.trials[outcome.chosen]
    changes = ({"unlearn.operator": operator} if operator else {}) | dict(outcome.changes)
    sets = " ".join(f"--set {key}={'null' if v is None else v}" for key, v in changes.items())
    console.out(f"chosen: {sets or 'the settings of the recipe'}")
    if best.verdict.shown < best.verdict.tuned_on - 0.1:
        console.out("on the other half it is worse: the choice may owe to chance; more images (-n) tell")


def _varied(settings: Sequence[Mapping[str, object]]) -> list[str]:
    """Names of the settings in which trials differ."""
    names = dict.fromkeys(name for values in settings for name in values)
    return [name for name in names if len({str(values.get(name)) for values in settings}) > 1]
