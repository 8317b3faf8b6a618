"""What several commands do alike: open the project, show a plan, say what was reused."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guda_cli import typed_number
from guda_cli.errors import CorruptError, DataError, UsageError
from guda_cli.phrases import human_seconds
from guda_cli.plain_text import quoted, shorten
from guda_cli.session import Session
from guda_cli.tables import Column

if TYPE_CHECKING:
    from guda_cli.sections import DataSpec
    from guda_cli.workflow.project.model_record import StoredModel
    from guda_cli.workflow.project.plan import Step
    from guda_cli.workflow.project.project import Project
    from guda_cli.workflow.starting.proposal import Speed

PLAN = (
    Column("step", cut=True),
    Column("status"),
    Column("why", wrap=True, drop=1),
    Column("forward-equivalents", right=True, drop=3, narrow="forward-\nequivalents"),
    Column("time", right=True, drop=2),
    Column("key", drop=4),
)


VERDICTS = ("passed", "doubtful", "failed")


def open_project(session: Session, *, create: bool = False) -> Project:
    """The current recipe on the session's store."""
    from guda_cli.workflow.project.project import Project

    store = session.open_store(create=create)
    options = session.options
    return Project(session.recipe(), store, session.console, wait=options.wait, jobs=options.jobs)


def in_data(spec: DataSpec, path: Path) -> bool:
    """Whether an image at `path` would be read as one of the training images (names with a dot are not)."""
    if spec.path is None or not Path(spec.path).is_dir():
        return False
    top, found = (Path(spec.path) / spec.root).resolve(), path.resolve()
    return found.is_relative_to(top) and not any(p.startswith(".") for p in found.relative_to(top).parts)


def keep_out_of_data(spec: DataSpec, path: Path, option: str) -> None:
    """DataError where images written to `path` would count as training images from then on."""
    if in_data(spec, path):
        beside = (Path(spec.path or "") / spec.root).resolve().parent / (path.name or "queries")
        raise DataError(
            f"{path} lies among the training images",
            why="what is written there would be trained on the next time",
            fix=f"{option} {quoted(str(beside))}",
        )


def refuse_lost(project: Project) -> None:
    """CorruptError, after an answer, where it lacks what is damaged or gone: it is not the one asked for."""
    if project.lost:
        raise CorruptError(
            "the answer lacks what is damaged or gone from the store",
            why="the warnings say what; made again, it is as it was",
            fix=next(iter(project.lost)),
        )


def join_launch(session: Session) -> bool:
    """Work with the other processes that `accelerate launch` started, if any; only the first one speaks.

    Returns whether this is the first.
    """
    from guda_cli.training import distributed

    distributed.join()
    if distributed.rank():
        session.console.mute()
    return distributed.rank() == 0


def with_sets(session: Session, *items: str) -> Session:
    """The session with further `--set` entries, from options that stand for one."""
    options = dataclasses.replace(session.options, sets=(*session.options.sets, *items))
    return Session(options, session.console)


LARGEST_SEED = (1 << 64) - 1


def parse_seeds(text: str) -> list[int]:
    """`2,3` as numbers, each once; UsageError on anything else."""
    parts = [part.strip() for part in text.split(",")]
    seeds = [seed for part in parts if (seed := typed_number.whole(part)) is not None]
    if len(seeds) < len(parts):
        raise UsageError(f"--seeds {shorten(text, 60)!r} is not a list of whole numbers", fix="--seeds 2,3")
    return list(dict.fromkeys(seeds))


def time_once(project: Project, device: str) -> Speed | None:
    """Time a few steps where nothing is known yet of how long a plan takes; None where something is."""
    from guda_cli.workflow.project.plan import Planner

    if Planner(project).rate is not None:
        return None
    from guda_cli.workflow.starting.speed import of_project

    return of_project(project, device)


def show_plan(session: Session, steps: Sequence[Step], title: str) -> None:
    """Print a plan as a table and as a `guda.plan/1` document."""
    console = session.console
    console.data({"schema": "guda.plan/1", "title": title, "steps": [step.to_dict() for step in steps]})
    shown, more = console.fold(steps, lambda step: step.doubted)
    rows = [
        (s.what, s.status, s.why, _count(s.forwards), _time(s.seconds), (s.key or "")[:10]) for s in shown
    ]
    console.out(console.table(PLAN, rows, title=title))
    if more:
        console.prose(more)
    left = [step for step in steps if step.status != "cached"]
    if left:
        known = [step.seconds for step in left if step.seconds is not None]
        cost = f", about {human_seconds(sum(known))}" if len(known) == len(left) else ""
        console.prose(f"{len(left):,} of {len(steps):,} steps to do{cost}")
    else:
        console.prose("nothing to do: every step is in the store")


def _time(seconds: float | None) -> str:
    return human_seconds(seconds) if seconds else "–"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def verdicts_of(models: Iterable[StoredModel]) -> Counter[str]:
    """How many unlearned models have which verdict; random sets are not judged."""
    judged = (model for model in models if model.check and not (model.removal and model.removal.is_null))
    return Counter(str(model.check["verdict"]) for model in judged if model.check)


def counted(verdicts: Counter[str]) -> str:
    """`8 passed, 1 doubtful, 1 failed`."""
    return ", ".join(f"{verdicts[name]} {name}" for name in VERDICTS if verdicts[name])


def say_done(session: Session, ran: int, total: int, what: str, verdicts: Counter[str] | None = None) -> None:
    """How many steps were run, how many were in the store already, and what their checks said."""
    if ran == 0:
        done = f"nothing to do, all {total} in the store"
    elif ran < total:
        done = f"{ran} done, {total - ran} reused from the store"
    else:
        done = f"{ran} done"
    checks = f"; checks: {counted(verdicts)}" if verdicts else ""
    session.console.say(f"{what}: {done}{checks}")
