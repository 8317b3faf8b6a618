"""The conditions that a stored model takes, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from guda_cli.data.classes import Conditions
from guda_cli.data.prompts import Prompts, read_prompts
from guda_cli.data.queries import ConditionSource
from guda_cli.errors import UsageError
from guda_cli.families.family import CLASS, PROMPT
from guda_cli.families.known import family_of
from guda_cli.sections import Recipe
from guda_cli.store import ActionRecord
from guda_cli.workflow.project.project import Project


@dataclass(frozen=True)
class Given:
    """What the command line says of the conditions of all query images."""

    class_: str | None = None
    prompts: tuple[str, ...] = ()
    table: Path | None = None
    """File of image and prompt."""


def check_given(recipe: Recipe, given: Given) -> None:
    """UsageError when the models of `recipe` do not take the kind of condition that is given."""
    if (given.prompts or given.table) and family_of(recipe).told(recipe) != PROMPT:
        raise UsageError(
            f"{'--prompt' if given.prompts else '--prompts'} needs a text-to-image model",
            why="model.text_conditional is false in this recipe",
        )
    if given.class_ is not None and family_of(recipe).told(recipe) != CLASS:
        raise UsageError(
            "--class needs a class-conditional model", why="model.class_conditional is false in this recipe"
        )


def conditions_for(project: Project, full: ActionRecord, given: Given) -> ConditionSource | None:
    """What says the class or prompt of query images, `given` or found beside each; None where there is none.

    UsageError when what is given is no class of the model, or when the model takes none.
    """
    check_given(project.recipe, given)
    classes = project.classes(full)
    if classes is not None:
        return Conditions(classes, given.class_)
    if project.family.prompts:
        return Prompts(given.prompts, read_prompts(given.table) if given.table else None)
    return None
