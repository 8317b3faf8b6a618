"""Which models stand for `had it never seen group k`: unlearned (guda) or retrained (logo) ones."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from guda_cli.errors import MissingError, UsageError
from guda_cli.workflow import actions, removal
from guda_cli.workflow.project import Project
from guda_cli.workflow.removal import Removal
from store import ActionRecord

METHODS = ("guda", "logo")


@dataclass(frozen=True)
class Counterfactuals:
    """The full model's record, those of the groups' and of the null's models; and what is missing."""

    method: str
    full: ActionRecord
    groups: dict[str, ActionRecord]
    nulls: dict[str, ActionRecord]
    lacking: tuple[Removal, ...]

    def records(self) -> dict[str, ActionRecord]:
        """Every model by removal name; the full model's name is empty."""
        return {"": self.full, **self.groups, **self.nulls}


def action_of(
    project: Project, method: str, full: ActionRecord, what: Removal, seed: int | None = None
) -> actions.Action:
    """The action that makes the model without `what`; `seed` is a retrained model's, if not the recipe's."""
    if method == "guda":
        return actions.unlearn(project.recipe, project.data, full, what)
    return actions.train(project.recipe, project.data, what, full, seed)


def command_of(method: str, names: Sequence[str]) -> str:
    """The command that makes the models without these groups."""
    if method == "guda":
        return "guda unlearn --group " + " --group ".join(map(shlex.quote, names))
    return "guda train --without " + " --without ".join(map(shlex.quote, names))


def find(project: Project, method: str, groups: Sequence[str] = ()) -> Counterfactuals:
    """The models of `method` that the store has, for all groups or for those named.

    Raises MissingError with the command when the full model, every group's model, or one that was
    asked for by name is not there.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}'", why="it is one of " + ", ".join(METHODS))
    full = project.require_full()
    counts = project.data.counts
    wanted = removal.of_groups(groups or list(counts), counts)
    found = {}
    for what in wanted + ([] if groups else _joint(project, method, full)):
        record = project.store.lookup(action_of(project, method, full, what).key)
        if record is not None:
            found[what.name] = record
    lacking = tuple(what for what in wanted if what.name not in found)
    if lacking and (groups or not found):
        every = len(lacking) == len(counts)
        all_command = "guda unlearn --all" if method == "guda" else "guda train --each-group"
        names = [what.name for what in lacking]
        kind = "unlearned" if method == "guda" else "leave-one-group-out"
        raise MissingError(
            f"no {kind} model for {'any group' if every else ', '.join(names[:5])}",
            why=_why(project, action_of(project, method, full, lacking[0])),
            fix=all_command if every else command_of(method, names),
        )
    null_records = {}
    for what in removal.nulls(counts, project.data.images, project.recipe.unlearn.null_groups):
        record = project.store.lookup(action_of(project, method, full, what).key)
        if record is not None:
            null_records[what.name] = record
    return Counterfactuals(method, full, found, null_records, lacking)


def _why(project: Project, action: actions.Action) -> str:
    """Whether such a model was made with other settings."""
    differing = actions.differences(project.store.records(action.operation), action)
    return f"one made with other settings is there: {', '.join(differing)} differ" if differing else ""


def _joint(project: Project, method: str, full: ActionRecord) -> list[Removal]:
    """Joint removals (`a+b`) that were made earlier with the current settings."""
    operation = "unlearn" if method == "guda" else "train"
    out = []
    for record in project.store.records(operation):
        names = ((record.params.get("without") or {}).get("groups")) or []
        if len(names) > 1 and set(names) <= set(project.data.counts):
            what = Removal(tuple(names))
            if action_of(project, method, full, what).key == record.key:
                out.append(what)
    return out


def removals_of(project: Project, found: Counterfactuals) -> list[Removal]:
    """The removals behind the models that were found."""
    counts, images = project.data.counts, project.data.images
    out = [removal.of_groups([name], counts)[0] for name in found.groups]
    random = removal.nulls(counts, images, project.recipe.unlearn.null_groups)
    return out + [what for what in random if what.name in found.nulls]


def warnings(found: Counterfactuals) -> list[str]:
    """What a reader of scores must know of these models: failed checks, one sentence a reason."""
    failed: dict[str, list[str]] = {}
    for name, record in found.groups.items():
        check = record.provenance.get("check")
        if check and not check["passed"]:
            failed.setdefault(check["why"].partition(" (")[0], []).append(name)
    out = [f"failed check of the model without {', '.join(names)}: {why}" for why, names in failed.items()]
    if not found.nulls:
        made = "guda unlearn --all" if found.method == "guda" else "guda train --null"
        out.append(f"no null of random groups ({made}), so nothing says whether a group stands out")
    return out
