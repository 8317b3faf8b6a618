"""Every method of `guda score` by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from guda_cli.errors import UsageError, unknown
from guda_cli.workflow.project.counterfactual_kinds import KINDS
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import instance_settings as instances
from guda_cli.workflow.scoring.conditions import check_given

if TYPE_CHECKING:
    from guda_cli.workflow.scoring.counterfactual_run import Settings
    from guda_cli.workflow.scoring.run import Run

METHODS = (*KINDS, *instances.METHODS)


def parse_methods(text: str, *, instances: int = 0, mapped: bool = False) -> list[str]:
    """`guda,similarity` as names, each once.

    UsageError for an unknown name, and where no method named can do what is asked: `instances` (scores of
    training images) or maps.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in METHODS:
            raise UsageError(unknown("method", name, METHODS), why="it is one of " + ", ".join(METHODS))
    if not names:
        raise UsageError("no method was named", fix="--method guda")
    if instances and not any(scores_images(name) for name in names):
        raise UsageError(
            f"--instances: {', '.join(names)} scores groups, not single training images",
            fix="--method similarity --instances N",
        )
    if mapped and not set(names) & set(KINDS):
        raise UsageError("--map needs a method that compares models", fix="--method guda --map FILE")
    return names


def scores_images(name: str) -> bool:
    """Whether the method scores single training images."""
    return name in instances.METHODS and name != instances.RANDOM


def make_runs(
    project: Project, names: Sequence[str], settings: Settings, device: str, count: int = 0
) -> list[Run]:
    """A run for each method; each checks what it needs before any work is done."""
    from guda_cli.workflow.scoring.counterfactual_run import ScoreRun
    from guda_cli.workflow.scoring.instance_run import InstanceRun

    check_given(project.recipe, settings.given)
    runs: list[Run] = []
    for name in names:
        if name in KINDS:
            runs.append(ScoreRun(project, dataclasses.replace(settings, method=name), device))
        else:
            chosen = instances.settings(name, project.recipe.attribution)
            runs.append(
                InstanceRun(
                    project, chosen, device, groups=settings.groups, given=settings.given,
                    instances=count,
                )
            )  # fmt: skip
    return runs
