"""What damage took from the answers of a recipe: models, checks and scorings that its store has no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from guda_cli.phrases import few
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import TRAIN
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project import designs
from guda_cli.workflow.project.counterfactual_kinds import GUDA, SUBSETS, CounterfactualKind, remakes
from guda_cli.workflow.project.project import Project

if TYPE_CHECKING:
    from guda_cli.store.losses import Loss

_SEEDS = range(32)  # tried beside those that are there, to know a model by its key alone


def of_models(
    project: Project,
    kind: CounterfactualKind,
    full: ActionRecord,
    groups: Sequence[str],
    of_seed: Callable[[int], bool],
) -> list[str]:
    """A sentence on each sort of loss among the models that an answer by `kind` rests on.

    `groups` are those asked for, all for none; `of_seed` says of which seeds the models are. What would make
    them again is noted in `Project.lost`, with which a command ends.
    """
    lost = project.store.lost((kind.operation,))
    if not lost:
        return []
    models = _Models(project, kind, full, groups, of_seed)
    gone = [found for loss in lost if (found := models.of(loss)) is not None]
    unknown = [loss for loss in lost if loss.record is None and models.of(loss) is None]
    out = []
    if gone:
        commands = [command for command, _ in gone]
        names = few([name for _, name in gone])
        project.lost |= dict.fromkeys(commands)
        out.append(f"damaged or gone from the store, so not in this answer: {names} ({commands[0]})")
    return out + _unreadable(unknown)


def of_others(
    project: Project, mine: Callable[[ActionRecord], bool], operations: Sequence[str], command: str
) -> list[str]:
    """The same of what else an answer is put together from: records for which `mine` holds."""
    lost = project.store.lost(operations)
    gone = [loss.what for loss in lost if loss.record is not None and mine(loss.record)]
    out = []
    if gone:
        project.lost.setdefault(command)
        names = few(list(dict.fromkeys(gone)))
        out.append(f"damaged or gone from the store, so not in this answer: {names} ({command})")
    return out + _unreadable(loss for loss in lost if loss.record is None and loss.operation)


def of_action(project: Project, key: str, operation: str) -> bool:
    """Whether an action was done once, and its result is damaged or gone."""
    return any(loss.key == key for loss in project.store.lost((operation,)))


def _unreadable(unknown: Iterable[Loss]) -> list[str]:
    names = [f"{loss.what} (record-{loss.key[:8]})" for loss in unknown]
    if not names:
        return []
    return [
        f"damaged beyond reading, in the store's quarantine: {few(names)}; this answer may lack it"
        " (deleting it there ends this warning)"
    ]


class _Models:
    """Tells the lost models that matter to an answer from others."""

    def __init__(
        self,
        project: Project,
        kind: CounterfactualKind,
        full: ActionRecord,
        groups: Sequence[str],
        of_seed: Callable[[int], bool],
    ) -> None:
        self.project, self.kind, self.full, self.of_seed = project, kind, full, of_seed
        self.own = (project.recipe.unlearn if kind is GUDA else project.recipe.train).seed
        self.asked = {part for name in groups for part in (name, *name.split("+"))}
        self.halves = {*designs.noted(project, designs.SUBSETS)}
        self.coalitions = {*designs.noted(project, designs.COALITIONS)}
        self._keys: dict[str, tuple[Removal, int]] | None = None

    def of(self, loss: Loss) -> tuple[str, str] | None:
        """The command that makes a lost model again, and what it is; None where it is none of these."""
        if loss.record is None:
            return self._by_key(loss)
        model = self.project.model(loss.record)
        what, seed = model.removal, self.own if model.seed is None else model.seed
        if what is None or not self._wanted(what, seed):
            return None
        same = remakes(self.project, self.full, loss.record)
        return (self._command(what, seed), loss.what) if same else None

    def _wanted(self, what: Removal, seed: int) -> bool:
        if not what.groups or not {*what.groups} <= {*self.project.data.counts} or not self.of_seed(seed):
            return False
        if self.asked:
            return {*what.groups} <= self.asked
        if self.kind.operation == TRAIN:
            return (what in self.halves) == (self.kind is SUBSETS)
        return what not in self.coalitions

    def _command(self, what: Removal, seed: int) -> str:
        of_another = self.kind.seeded and seed != self.own
        return self.kind.command([what.typed]) + (f" --seeds {seed}" if of_another else "")

    def _by_key(self, loss: Loss) -> tuple[str, str] | None:
        """The same of a record that says nothing sure: its name is the key of what it was."""
        if self._keys is None:
            single = [Removal((name,)) for name in self.project.data.counts]
            several = [*self.halves, *self.coalitions]
            self._keys = {
                self.kind.action(self.project, self.full, what, seed).key: (what, seed)
                for what in (*single, *several)
                for seed in {*_SEEDS, self.own}
                if self._wanted(what, seed)
            }
        found = self._keys.get(loss.key)
        if found is None:
            return None
        what, seed = found
        return self._command(what, seed), loss.what if loss.operation else f"{self.kind.verb} {what.short}"
