"""The conditions that a stored model takes, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guda_cli.data.conditions import Classes, Conditions
from guda_cli.data.prompts import Prompts, read_prompts
from guda_cli.data.queries import ConditionSource
from guda_cli.errors import DataError, RecipeError, UsageError
from guda_cli.recipe import Recipe
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


@dataclass(frozen=True)
class Given:
    """What the command line says of the conditions of all query images."""

    class_: str | None = None
    prompts: tuple[str, ...] = ()
    table: Path | None = None
    """File of image and prompt."""


def check_given(recipe: Recipe, given: Given) -> None:
    """UsageError when the models of `recipe` do not take the kind of condition that is given."""
    if (given.prompts or given.table) and not recipe.model.text_conditional:
        raise UsageError(
            f"{'--prompt' if given.prompts else '--prompts'} needs a text-to-image model",
            why="model.text_conditional is false in this recipe",
        )
    if given.class_ is not None and not recipe.model.class_conditional:
        raise UsageError(
            "--class needs a class-conditional model", why="model.class_conditional is false in this recipe"
        )


def conditions_for(project: Project, full: ActionRecord, given: Given) -> ConditionSource | None:
    """What says the class or prompt of query images, `given` or found beside each; None where there is none.

    UsageError when what is given is no class of the model, or when the model takes none.
    """
    check_given(project.recipe, given)
    classes = read_classes(project, full)
    if classes is not None:
        return Conditions(classes, given.class_)
    if project.recipe.model.text_conditional:
        return Prompts(given.prompts, read_prompts(given.table) if given.table else None)
    return None
