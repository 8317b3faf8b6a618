"""Every method of `guda score` by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from guda_cli.attribution import methods
from guda_cli.attribution.methods import COUNTERFACTUAL, IMAGES
from guda_cli.errors import UsageError
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import instance_settings
from guda_cli.workflow.scoring.conditions import check_given

if TYPE_CHECKING:
    from guda_cli.workflow.scoring.counterfactual_run import Settings
    from guda_cli.workflow.scoring.run import Run

RACING = ("guda", "logo")
"""Methods whose scores are sums of terms that may be drawn as far as needed."""


def parse_methods(text: str, *, instances: int = 0, mapped: bool = False) -> list[str]:
    """`guda,similarity` as names, each once.

    UsageError for an unknown name, and where no method named can do what is asked: `instances` (scores of
    training images) or maps.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    kinds = {methods.find(name).kind for name in names}
    if not names:
        raise UsageError("no method was named", fix="--method guda")
    if instances and IMAGES not in kinds:
        raise UsageError(
            f"--instances: {', '.join(names)} scores groups, not single training images",
            fix="--method similarity --instances N",
        )
    if mapped and COUNTERFACTUAL not in kinds:
        raise UsageError("--map needs a method that compares models", fix="--method guda --map FILE")
    return names


def make_runs(
    project: Project, names: Sequence[str], settings: Settings, device: str, count: int = 0, places: int = 1
) -> list[Run]:
    """A run for each method; each checks what it needs before any work is done.

    `places` is for how many first groups a race is, where `settings` ask for one.
    """
    from guda_cli.workflow.scoring.counterfactual_run import ScoreRun
    from guda_cli.workflow.scoring.instance_run import make_run
    from guda_cli.workflow.scoring.race_run import RaceRun

    check_given(project.recipe, settings.given)
    runs: list[Run] = []
    for name in names:
        if settings.race:
            if name not in RACING:
                raise UsageError(f"--race is for {' and '.join(RACING)}, not for {name}", fix="--method guda")
            runs.append(RaceRun(project, dataclasses.replace(settings, method=name), device, places))
        elif methods.find(name).kind == COUNTERFACTUAL:
            runs.append(ScoreRun(project, dataclasses.replace(settings, method=name), device))
        else:
            chosen = instance_settings.settings(name, project.recipe.attribution)
            runs.append(
                make_run(
                    project, chosen, device, groups=settings.groups, given=settings.given, instances=count
                )
            )
    return runs
