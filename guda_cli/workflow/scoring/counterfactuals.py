"""Which models stand for `had it never seen group k`: unlearned (guda) or retrained (logo) ones.

Retrained models may come in several seeds: the mean oracle is then the mean of their scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guda_cli.errors import MissingError, UsageError
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import operations, removal
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.project.without import METHODS, action_of, command_of

if TYPE_CHECKING:
    from guda_cli.diffusion.schedule import Array


@dataclass(frozen=True)
class Counterfactuals:
    """The full model's record, those of the groups' and of the null's models; and what is missing.

    `groups` and `nulls` hold one model a seed, in the order of `seeds` (empty: the recipe's own).
    """

    method: str
    full: ActionRecord
    groups: dict[str, tuple[ActionRecord, ...]]
    nulls: dict[str, tuple[ActionRecord, ...]]
    lacking: tuple[Removal, ...]
    seeds: tuple[int, ...] = ()

    def labels(self, name: str) -> list[str]:
        """The labels of the models without `name`, one a seed."""
        return [f"{name} (seed {seed})" for seed in self.seeds] if len(self.seeds) > 1 else [name]

    def records(self) -> dict[str, ActionRecord]:
        """Every model by its label; the full model's is empty."""
        out = {"": self.full}
        for name, models in (self.groups | self.nulls).items():
            out |= dict(zip(self.labels(name), models, strict=True))
        return out

    def mean(self, cells: Mapping[str, Array], names: Mapping[str, object]) -> dict[str, Array]:
        """Terms of each of `names`, averaged over the seeds, from those of every model by label."""
        out = {}
        for name in names:
            parts = [cells[label] for label in self.labels(name)]
            out[name] = parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0]) / len(parts)
        return out


def oracle_seeds(project: Project, full: ActionRecord, wanted: Sequence[Removal]) -> tuple[int, ...]:
    """The seeds under which the store has models retrained without the most of `wanted`, in order.

    The full model's own seed only when no other has as many: a model that shares the full model's
    initialisation flatters whatever was derived from it (method.md section 6).
    """
    records = [r for r in project.store.records("train") if r.params.get("without")]
    counts = {}
    for seed in {int(record.params["train"]["seed"]) for record in records}:
        keys = [action_of(project, "logo", full, what, seed).key for what in wanted]
        counts[seed] = sum(project.store.lookup(key) is not None for key in keys)
    own, best = project.recipe.train.seed, max(counts.values(), default=0)
    if best == 0:
        return (own,)
    complete = sorted(seed for seed, n in counts.items() if n == best)
    others = [seed for seed in complete if seed != own]
    shared = full.operation == "train"  # a registered model shares its initialisation with none
    return tuple(others if shared and others else complete)


def find(
    project: Project, method: str, groups: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Counterfactuals:
    """The models of `method` that the store has, for all groups or for those named.

    `seeds` are those of the oracle's models (`logo`); without, all that the store has for every group.

    Raises MissingError with the command when the full model, every group's model, or one that was
    asked for by name is not there.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}'", why="it is one of " + ", ".join(METHODS))
    full = project.require_full()
    counts = project.data.counts
    wanted = removal.of_groups(groups or list(counts), counts)
    chosen: tuple[int, ...] = ()
    if method == "logo":
        chosen = tuple(seeds) or oracle_seeds(project, full, wanted)
    lookup = _Lookup(project, method, full, chosen)
    found = lookup.all(wanted + ([] if groups else _joint(project, method, full, chosen)))
    lacking = tuple(what for what in wanted if what.name not in found)
    if lacking and (groups or not found):
        every = len(lacking) == len(counts)
        all_command = "guda unlearn --all" if method == "guda" else "guda train --each-group"
        names = [what.name for what in lacking]
        kind = "unlearned" if method == "guda" else "leave-one-group-out"
        raise MissingError(
            f"no {kind} model for {'any group' if every else ', '.join(names[:5])}",
            why=_why(project, action_of(project, method, full, lacking[0])),
            fix=(all_command if every else command_of(method, names)) + _seeds_option(project, chosen),
        )
    random = removal.nulls(counts, project.data.images, project.recipe.unlearn.null_groups)
    return Counterfactuals(method, full, found, lookup.all(random), lacking, chosen)


@dataclass(frozen=True)
class _Lookup:
    """Finds the models of removals, one a seed."""

    project: Project
    method: str
    full: ActionRecord
    seeds: tuple[int, ...]

    def all(self, removals: Sequence[Removal]) -> dict[str, tuple[ActionRecord, ...]]:
        """By removal name; only those that are there under every seed."""
        found = {}
        for what in removals:
            records = [self._one(what, seed) for seed in self.seeds or (None,)]
            if None not in records:
                found[what.name] = tuple(record for record in records if record is not None)
        return found

    def _one(self, what: Removal, seed: int | None) -> ActionRecord | None:
        return self.project.store.lookup(action_of(self.project, self.method, self.full, what, seed).key)


def _seeds_option(project: Project, seeds: tuple[int, ...]) -> str:
    """` --seeds 2,3` where the models wanted have other seeds than the recipe's."""
    return "" if set(seeds) <= {project.recipe.train.seed} else " --seeds " + ",".join(map(str, seeds))


def _why(project: Project, action: operations.Action) -> str:
    """Whether such a model was made with other settings."""
    differing = operations.differences(project.store.records(action.operation), action)
    return f"one made with other settings is there: {', '.join(differing)} differ" if differing else ""


def _joint(project: Project, method: str, full: ActionRecord, seeds: tuple[int, ...] = ()) -> list[Removal]:
    """Joint removals (`a+b`) that were made earlier with the current settings."""
    operation = "unlearn" if method == "guda" else "train"
    out = []
    for record in project.store.records(operation):
        names = ((record.params.get("without") or {}).get("groups")) or []
        if len(names) > 1 and set(names) <= set(project.data.counts):
            what = Removal(tuple(names))
            keys = {action_of(project, method, full, what, seed).key for seed in seeds or (None,)}
            if record.key in keys and what not in out:
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
    for name, records in found.groups.items():
        check = records[0].provenance.get("check")
        if check and not check["passed"]:
            failed.setdefault(check["why"].partition(" (")[0], []).append(name)
    out = [f"failed check of the model without {', '.join(names)}: {why}" for why, names in failed.items()]
    if not found.nulls:
        seeds = f" --seeds {','.join(map(str, found.seeds))}" if found.seeds else ""
        made = "guda unlearn --all" if found.method == "guda" else f"guda train --null{seeds}"
        out.append(f"no null of random groups ({made}), so nothing says whether a group stands out")
    return out
