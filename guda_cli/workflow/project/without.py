"""Which models stand for `had it never seen group k`, and the commands that make them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from guda_cli.attribution import methods
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import operations, steps
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.project import Project

if TYPE_CHECKING:
    pass


METHODS = methods.COMPARING


def action_of(
    project: Project, method: str, full: ActionRecord, what: Removal, seed: int | None = None
) -> operations.Action:
    """The action that makes the model without `what`; `seed` is a retrained model's, if not the recipe's."""
    if method == "guda":
        return steps.unlearn(project.recipe, project.data, full, what)
    return steps.train(project.recipe, project.data, what, full, seed)


def command_of(method: str, names: Sequence[str]) -> str:
    """The command that makes the models without these groups."""
    if method == "guda":
        return "guda unlearn --group " + " --group ".join(map(shlex.quote, names))
    return "guda train --without " + " --without ".join(map(shlex.quote, names))
