"""The classes of a stored model, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from guda_cli.data.conditions import Classes, Conditions
from guda_cli.errors import DataError, RecipeError, UsageError
from guda_cli.workflow.project import Project
from store import ActionRecord


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


def conditions_for(project: Project, full: ActionRecord, given: str | None) -> Conditions | None:
    """What says the class of query images, `given` or found beside each; None for unconditional models.

    UsageError when `given` is no class of the model.
    """
    classes = read_classes(project, full)
    if classes is not None:
        return Conditions(classes, given)
    if given is not None:
        raise UsageError(
            "--class needs a class-conditional model", why="model.class_conditional is false in this recipe"
        )
    return None
