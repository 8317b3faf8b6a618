"""The models that stand for `had it never seen group k`, as the store has them.

Retrained models may come in several seeds: the mean oracle is then the mean of their scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guda_cli.errors import MissingError
from guda_cli.phrases import few
from guda_cli.store import ActionRecord
from guda_cli.unlearning.judgement import FAILED, PASSED
from guda_cli.workflow.keys import operations, removal
from guda_cli.workflow.keys.operations import TRAINING_CHECK, UNLEARN, Action
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project import designs, losses, training_check
from guda_cli.workflow.project.counterfactual_kinds import LOGO, SUBSETS, CounterfactualKind, kind_of, remakes
from guda_cli.workflow.project.project import Project

if TYPE_CHECKING:
    from guda_cli.diffusion.schedule import Array


@dataclass(frozen=True)
class Counterfactual:
    """One model: what it has never seen, the seed of its training (None: the recipe's), its action."""

    removal: Removal
    seed: int | None
    action: Action
    record: ActionRecord
    label: str
    """Its name in the store's tables and in reports: the removal's, with the seed where there are several."""


@dataclass(frozen=True)
class Counterfactuals:
    """The full model's record and the groups' models; and what is missing.

    `groups` holds one model a seed, in the order of `seeds` (empty: the recipe's own).
    """

    kind: CounterfactualKind
    full: ActionRecord
    groups: dict[Removal, tuple[Counterfactual, ...]]
    lacking: tuple[Removal, ...]
    seeds: tuple[int, ...] = ()
    lost: tuple[str, ...] = ()
    """A sentence on each sort of model that was there once, and is damaged or gone."""

    @property
    def method(self) -> str:
        """The method's name."""
        return self.kind.method

    def models(self) -> Iterator[Counterfactual]:
        """Every model but the full one."""
        for models in self.groups.values():
            yield from models

    def records(self) -> dict[str, ActionRecord]:
        """Every model's record by its label; the full model's is empty."""
        return {"": self.full} | {model.label: model.record for model in self.models()}

    def records_of(self, what: Removal) -> dict[str, ActionRecord]:
        """The same of the full model and those without one group."""
        return {"": self.full} | {model.label: model.record for model in self.groups[what]}

    def mean(self, cells: Mapping[str, Array]) -> dict[Removal, Array]:
        """Terms without each group, averaged over the seeds, from those of every model by label."""
        return {what: self.mean_of(what, cells) for what in self.groups}

    def mean_of(self, what: Removal, cells: Mapping[str, Array]) -> Array:
        """The same of one group."""
        parts = [cells[model.label] for model in self.groups[what]]
        return parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0]) / len(parts)

    def named(self, name: str) -> tuple[Counterfactual, ...]:
        """The models without the group or groups of that name."""
        return next(models for what, models in self.groups.items() if what.name == name)


def oracle_seeds(project: Project, full: ActionRecord, wanted: Sequence[Removal]) -> tuple[int, ...]:
    """The seeds under which the store has models retrained without the most of `wanted`, in order.

    The full model's own seed only when no other has as many: a model that shares the full model's
    initialisation flatters whatever was derived from it (docs/methods.md, the oracle).
    """
    models = [project.model(record) for record in project.store.records(LOGO.operation)]
    counts = {}
    for seed in {model.seed for model in models if model.removal and model.seed is not None}:
        keys = [LOGO.action(project, full, what, seed).key for what in wanted]
        counts[seed] = sum(project.store.lookup(key) is not None for key in keys)
    own, best = project.recipe.train.seed, max(counts.values(), default=0)
    if best == 0:
        return (own,)
    complete = sorted(seed for seed, n in counts.items() if n == best)
    others = [seed for seed in complete if seed != own]
    shared = project.model(full).trained  # a registered model shares its initialisation with none
    return tuple(others if shared and others else complete)


def find(
    project: Project, method: str, groups: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Counterfactuals:
    """The models of `method` that the store has, for all groups or for those named.

    `seeds` are those of the oracle's models (`logo`); without, all that the store has for every group.

    Raises MissingError with the command when the full model, every group's model, or one that was
    asked for by name is not there.
    """
    kind = kind_of(method)
    full = project.require_full()
    counts = project.data.counts
    drawn = designs.noted(project, designs.SUBSETS)
    halves = kind is SUBSETS and not groups
    wanted = drawn if halves else removal.of_groups(groups or list(counts), counts)
    if not wanted:
        raise MissingError("no model was trained without a random half of the groups", fix=kind.all_command)
    chosen: tuple[int, ...] = ()
    if kind.seeded:
        chosen = tuple(seeds) or oracle_seeds(project, full, wanted)
    elif kind.operation == UNLEARN:
        chosen = tuple(seeds) or project.recipe.unlearn.seeds
    lookup = _Lookup(project, kind, full, chosen)
    joint = [] if groups or halves else _joint(project, kind, full, chosen)
    apart = {*drawn, *designs.noted(project, designs.COALITIONS)}
    found = lookup.all(wanted + [what for what in joint if what not in apart])
    lacking = tuple(what for what in wanted if what not in found)
    lost = losses.of_models(
        project, kind, full, groups, lambda seed: _counts(project, kind, seeds, chosen, seed)
    )
    if lacking and (groups or not found):
        raise _missing(project, kind, full, lacking, chosen, lost)
    return Counterfactuals(kind, full, found, lacking, chosen, tuple(lost))


def _counts(
    project: Project, kind: CounterfactualKind, asked: Sequence[int], chosen: Sequence[int], seed: int
) -> bool:
    """Whether a model of `seed` would be part of an answer from models of the seeds `chosen`."""
    if asked or kind.operation == UNLEARN:
        return seed in (chosen or (project.recipe.unlearn.seed,))
    # The oracle takes all seeds that are complete, but the full model's own only where it must.
    return seed in chosen or seed != project.recipe.train.seed


@dataclass(frozen=True)
class _Lookup:
    """Finds the models of removals, one a seed."""

    project: Project
    kind: CounterfactualKind
    full: ActionRecord
    seeds: tuple[int, ...]

    def all(self, removals: Sequence[Removal]) -> dict[Removal, tuple[Counterfactual, ...]]:
        """Only those that are there under every seed."""
        found = {}
        for what in removals:
            models = [self._one(what, seed) for seed in self.seeds or (None,)]
            known = tuple(model for model in models if model is not None)
            if len(known) == len(models):
                found[what] = known
        return found

    def _one(self, what: Removal, seed: int | None) -> Counterfactual | None:
        action = self.kind.action(self.project, self.full, what, seed)
        record = self.project.store.lookup(action.key)
        label = f"{what.name} (seed {seed})" if len(self.seeds) > 1 else what.name
        return Counterfactual(what, seed, action, record, label) if record else None


def _missing(
    project: Project,
    kind: CounterfactualKind,
    full: ActionRecord,
    lacking: Sequence[Removal],
    seeds: tuple[int, ...],
    lost: Sequence[str],
) -> MissingError:
    every, names = len(lacking) == len(project.data.counts), [what.typed for what in lacking]
    made_with = set(seeds) <= {project.recipe.train.seed}
    option = "" if made_with else " --seeds " + ",".join(map(str, seeds))
    action = kind.action(project, full, lacking[0], None)
    differing = operations.differences(project.store.records(action.operation), action)
    others = f"one made with other settings is there: {', '.join(differing)} differ" if differing else ""
    return MissingError(
        f"no {kind.made} model for {'any group' if every else few(names)}",
        why="; ".join(lost) or others,
        fix=(kind.all_command if every else kind.command(names)) + option,
    )


def _joint(
    project: Project, kind: CounterfactualKind, full: ActionRecord, seeds: tuple[int, ...]
) -> list[Removal]:
    """Joint removals (`a+b`) that were made earlier with the current settings."""
    out = []
    for record in project.store.records(kind.operation):
        model = project.model(record)
        what = model.removal
        if what is None or len(what.groups) < 2 or not set(what.groups) <= set(project.data.counts):
            continue
        wanted = not seeds or model.seed in seeds
        if what not in out and wanted and remakes(project, full, record):
            out.append(what)
    return out


def warnings(project: Project, found: Counterfactuals) -> list[str]:
    """What a reader of scores must know of these models: failed and doubtful checks, a sentence a reason."""
    trained = training_check.known(project, found.full)
    of_full = [trained.sentence] if trained and trained.verdict != PASSED else []
    if trained is None and losses.of_action(
        project, training_check.action(project, found.full).key, TRAINING_CHECK
    ):
        of_full = ["the check of the full model is damaged or gone from the store (guda train)"]
    against: dict[tuple[str, str], list[str]] = {}
    for what, models in found.groups.items():
        check = project.model(models[0].record).check
        if check and check["verdict"] != PASSED:
            reason = check["verdict"], check["why"].partition(" (")[0]
            against.setdefault(reason, []).append(what.name)
    ordered = sorted(against.items(), key=lambda item: item[0][0] != FAILED)
    of_groups = [f"{verdict} check of the model without {few(n)}: {why}" for (verdict, why), n in ordered]
    return [*found.lost, *of_full, *of_groups]
