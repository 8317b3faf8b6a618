"""Which models stand for `had it never seen group k`: a row a kind, by the name of its method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from guda_cli.errors import UsageError
from guda_cli.plain_text import quoted
from guda_cli.sections import total_steps
from guda_cli.store import ActionRecord
from guda_cli.unlearning import catalog
from guda_cli.workflow.keys import steps
from guda_cli.workflow.keys.operations import TRAIN, UNLEARN, Action
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.project import Project


@dataclass(frozen=True)
class CounterfactualKind:
    """How models without a group are made, and how one speaks of them."""

    method: str
    operation: str
    made: str
    """What such a model is: `unlearned`."""
    verb: str
    """Before a removal's name, in a plan."""
    step: str
    """In a table of costs."""
    all_command: str
    one_command: str
    """The commands that make them: for all groups, and before each group's name."""
    seeded: bool
    """Whether there may be several of each, trained with seeds of their own."""
    needs_full: bool
    """Whether its key needs the full model's."""
    action: Callable[[Project, ActionRecord | None, Removal, int | None], Action]
    forwards: Callable[[Project, Removal], float]
    """What one costs, as its action will say."""

    def command(self, names: Sequence[str]) -> str:
        """The command that makes the models without these groups."""
        verb, option = self.one_command.rsplit(" ", 1)
        return " ".join([verb, *(f"{option} {quoted(name)}" for name in names)])


def _unlearn(project: Project, full: ActionRecord | None, what: Removal, seed: int | None) -> Action:
    assert full is not None
    return steps.unlearn(project.recipe, project.data, full, what, seed)


def _retrain(project: Project, full: ActionRecord | None, what: Removal, seed: int | None) -> Action:
    return steps.train(project.recipe, project.data, what, full, seed)


def _unlearning_forwards(project: Project, what: Removal) -> float:
    data = project.data
    return catalog.forwards(project.recipe.unlearn, min(what.images(data.counts), data.images), data.images)


def _training_forwards(project: Project, what: Removal) -> float:
    spec = project.recipe.train
    return 3.0 * total_steps(spec, project.data.images) * spec.batch_size


GUDA = CounterfactualKind(
    "guda", UNLEARN, "unlearned", "unlearn", "unlearn",
    "guda unlearn --all", "guda unlearn --group", False, True, _unlearn, _unlearning_forwards,
)  # fmt: skip
LOGO = CounterfactualKind(
    "logo", TRAIN, "leave-one-group-out", "model without", "retrain",
    "guda train --each-group", "guda train --without", True, False, _retrain, _training_forwards,
)  # fmt: skip
SUBSETS = CounterfactualKind(
    "subsets", TRAIN, "retrained", "model without", "retrain",
    "guda train --subsets 16", "guda train --without", True, False, _retrain, _training_forwards,
)  # fmt: skip
KINDS = {kind.method: kind for kind in (GUDA, LOGO, SUBSETS)}


def kind_of(method: str) -> CounterfactualKind:
    """The row of `method`; UsageError for another name."""
    if method not in KINDS:
        raise UsageError(f"unknown method '{method}'", why="it is one of " + ", ".join(KINDS))
    return KINDS[method]


def remakes(project: Project, full: ActionRecord, record: ActionRecord) -> bool:
    """Whether the current settings would make the very model of `record`, with its own seed."""
    model = project.model(record)
    what = model.removal
    kinds = [kind for kind in KINDS.values() if kind.operation == record.operation]
    if what is None:
        return False
    return any(kind.action(project, full, what, model.seed).key == record.key for kind in kinds)
