"""The noise schedule of a stored model, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from guda_cli.data.classes import Classes
from guda_cli.diffusion.schedule import Schedule
from guda_cli.errors import DataError, RecipeError
from guda_cli.store import ActionRecord
from guda_cli.workflow.project.project import Project


def schedule_bytes(schedule: Schedule) -> bytes:
    """The betas of a schedule as they are stored."""
    return schedule.to_bytes()


def read_schedule(project: Project, record: ActionRecord) -> Schedule:
    """The schedule a model was trained with, from its stored betas and configuration."""
    config = json.loads(project.read(record, "config"))
    betas = np.frombuffer(project.read(record, "betas"), dtype="<f8")
    return Schedule.from_betas(betas.copy(), config["scheduler"].get("prediction_type") or "epsilon")


def read_classes(project: Project, full: ActionRecord) -> Classes | None:
    """Classes of the full model, None where it is unconditional; errors as `classes_of`."""
    config = json.loads(project.read(full, "config"))
    return classes_of(config, project.recipe.model.class_conditional, project.data.counts)


def classes_of(config: Mapping[str, Any], conditional: bool, groups: Iterable[str]) -> Classes | None:
    """Class names and null class by a model's stored configuration, None for an unconditional model.

    RecipeError when the recipe (`conditional`) says otherwise, DataError when the classes are not the data's
    `groups`: both can happen to a registered model only, whose recipe or data were changed later.
    """
    if conditional != ("classes" in config):
        is_, says = ("class-conditional", "false") if not conditional else ("unconditional", "true")
        raise RecipeError(
            f"the full model is {is_}, but model.class_conditional is {says}",
            fix=f"--set model.class_conditional={'false' if conditional else 'true'}",
        )
    if not conditional:
        return None
    names, known = tuple(config["classes"]), tuple(sorted(groups))
    if names != known:
        raise DataError(
            "the classes of the registered model are not the groups of the data",
            why=f"it was registered with {', '.join(names[:8])}; the data have {', '.join(known[:8])}",
            fix="guda train --from registers it for these data",
        )
    has_null = config["unet"].get("null_class", True) and config["unet"]["num_class_embeds"] > len(names)
    return Classes(names, len(names) if has_null else None)
