"""What a command would do: every step, whether the store has it, why not, and what it would cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from guda_cli.phrases import plural
from guda_cli.store import ActionRecord
from guda_cli.unlearning.judgement import PASSED
from guda_cli.workflow.keys import operations, part_keys, removal
from guda_cli.workflow.keys.operations import MODELS, TRAIN, Action
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project import training_check
from guda_cli.workflow.project.counterfactual_kinds import KINDS, CounterfactualKind
from guda_cli.workflow.project.project import Project

CACHED, TO_DO, WAITS = "cached", "to do", "waits"


@dataclass(frozen=True)
class Step:
    """One step: `status` cached | to do | waits (for an earlier step), and the command that runs it."""

    what: str
    status: str
    why: str = ""
    key: str | None = None
    forwards: float | None = None
    seconds: float | None = None
    command: str = ""
    done: float = 0.0
    """Share of it that an interrupted run has done."""

    @property
    def doubted(self) -> bool:
        """Whether it is there but did not pass its check."""
        return self.status == CACHED and self.why.startswith("check ") and self.why != f"check {PASSED}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "done"}


class Planner:
    """Plans of one project; runs and writes nothing."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.data = project.known_data()
        self._known: dict[str, list[ActionRecord]] = {}
        measured = _seconds_a_forward([record for name in MODELS for record in self._records(name)])
        self.rate = measured or _timed(project)

    def dataset(self) -> Step:
        """Reading the images."""
        if self.data is not None:
            images, groups, held = self.data.images, len(self.data.counts), self.data.held_out_images
            what = f"{plural(images, 'image', 'images')} in {plural(groups, 'group', 'groups')}"
            what += f", {held} more held out" if held else ""
            return Step("dataset", CACHED, what, self.data.key)
        return Step("dataset", TO_DO, "not read yet, or changed since", command="guda train")

    def full(self) -> Step:
        """The full model."""
        recipe = self.project.recipe
        if recipe.model.registered:
            record = self.project.known_full()
            if record:
                return Step("full model", CACHED, "registered with --from", record.key, 0.0, 0.0)
            return Step(
                "full model",
                TO_DO,
                "the registered model is not in the store",
                command="guda train --from DIR",
            )
        if self.data is None:
            return Step("full model", WAITS, "for the dataset", command="guda train")
        if not self.project.has_parts(self.data):
            parts = " and the ".join(maker.what for maker in self.project.family.makers)
            return Step("full model", WAITS, f"for the {parts}", command="guda train")
        return self._step(self.project.full_action(self.data))

    def _sound(self, record: ActionRecord) -> str:
        """What the check of the full model said; nothing where it was never checked."""
        found = training_check.known(self.project, record)
        if not found:
            return ""
        return f"check {found.verdict}" + ("" if found.verdict == PASSED else f": {found.why}")

    def parts(self) -> list[Step]:
        """VAE and text encoder, where the recipe trains them."""
        recipe, data = self.project.recipe, self.data
        made = [maker.what for maker in self.project.family.makers]
        if recipe.model.base or recipe.model.registered or not made:
            return []
        if data is None:
            return [Step(what, WAITS, "for the dataset", command="guda train") for what in made]
        begun = part_keys.trained(recipe, data, self.project.store)
        steps = [self._step(action) for action, _ in begun]
        return steps + [
            Step(what, WAITS, f"for the {made[0]}", command="guda train") for what in made[len(steps) :]
        ]

    def unlearning(self) -> list[Step]:
        """All steps up to the unlearned models of every group, random sets included."""
        made = self.models("guda", self.groups() + self.nulls())
        return [self.dataset(), *self.parts(), self.full(), *made]

    def models(self, method: str, removals: Sequence[Removal], seed: int | None = None) -> list[Step]:
        """Counterfactual models by `method`, perhaps with another `seed`."""
        kind, full = KINDS[method], self.project.known_full()
        ready = self.data is not None and self.project.has_parts(self.data)
        if not ready or (full is None and kind.needs_full):
            return [self._waiting(kind, what) for what in removals]
        return [self._step(kind.action(self.project, full, what, seed)) for what in removals]

    def _waiting(self, kind: CounterfactualKind, what: Removal) -> Step:
        """A model that waits for the full one; what it costs is known as soon as the data are."""
        forwards = kind.forwards(self.project, what) if self.data else None
        seconds = forwards * self.rate if forwards and self.rate else None
        why = "for the full model"
        return Step(f"{kind.verb} {what.short}", WAITS, why, None, forwards, seconds)

    def _step(self, action: Action) -> Step:
        record = self.project.store.lookup(action.key)
        if record is not None:
            seconds = record.provenance.get("wall_seconds")
            full = record.operation == TRAIN and not record.params.get("without")
            said = self._sound(record) if full else self._checked(record)
            return Step(action.what, CACHED, said, action.key, action.forwards, seconds, action.command)
        saved = self.project.store.state_step(action.key) if action.steps else None
        done = saved / action.steps if saved else 0.0
        seconds = action.forwards * self.rate * (1.0 - done) if self.rate else None
        return Step(
            action.what, TO_DO, self._why(action, saved), action.key, action.forwards, seconds,
            action.command, done,
        )  # fmt: skip

    def _checked(self, record: ActionRecord) -> str:
        """What the check of an unlearned model said; nothing of random sets, which are not judged."""
        model = self.project.model(record)
        if model.check is None or (model.removal and model.removal.is_null):
            return ""
        verdict = model.check["verdict"]
        return f"check {verdict}" + ("" if verdict == PASSED else f": {model.check['why']}")

    def _records(self, operation: str) -> list[ActionRecord]:
        if operation not in self._known:
            self._known[operation] = list(self.project.store.records(operation))
        return self._known[operation]

    def _why(self, action: Action, saved: int | None) -> str:
        if saved is not None:
            return f"interrupted at step {saved} of {action.steps}"
        if action.key in self._lost:
            return "damaged or gone from the store"
        differing = operations.differences(self._records(action.operation), action)
        if differing:
            return "made before with other settings or data: " + ", ".join(differing)
        return "not made yet"

    @cached_property
    def _lost(self) -> set[str]:
        return {loss.key for loss in self.project.store.lost()}

    def nulls(self) -> list[Removal]:
        """The random sets of the null, or none while the data are unknown."""
        if self.data is None:
            return []
        return removal.nulls(self.data.counts, self.data.images, self.project.recipe.unlearn.null_groups)

    def groups(self) -> list[Removal]:
        """Every group."""
        return removal.of_groups(list(self.data.counts), self.data.counts) if self.data else []


SPEED = "speed"
"""The store's document of what was timed before anything was trained."""


def forward_seconds(project: Project, full: ActionRecord) -> float | None:
    """Seconds a forward of scoring or drawing by `full`: as scoring took, else as timed, else as training.

    None where nothing was ever run.
    """
    scored = [
        record.provenance
        for record in project.store.records("score")
        if record.inputs.get("full") == full.outputs["weights"]
        and "grid" in record.params  # what other methods count is no forwards
        and record.provenance.get("forwards")
    ]
    if scored:
        seconds, forwards = (sum(seen[name] for seen in scored) for name in ("wall_seconds", "forwards"))
        return float(seconds / forwards)
    return _timed(project, "scoring") or Planner(project).rate


def timed(steps: Iterable[Step], rate: float | None) -> list[Step]:
    """Steps of scoring and drawing with the seconds they will take at `rate` seconds a forward."""
    return [
        replace(step, seconds=step.forwards * rate)
        if rate and step.forwards and step.status != CACHED
        else step
        for step in steps
    ]


def _timed(project: Project, what: str = "training") -> float | None:
    """Seconds a forward-equivalent of training or scoring, where they were timed for this network."""
    known = project.store.get_document(SPEED) or {}
    shape = [project.recipe.data.channels, project.recipe.data.size]
    return known[what] if known.get("shape") == shape else None


def _seconds_a_forward(records: list[ActionRecord]) -> float | None:
    """Measured seconds a forward-equivalent of steps run in this store."""
    rates = [
        record.provenance["wall_seconds"] / record.provenance["forwards"]
        for record in records
        if record.provenance.get("forwards") and not record.provenance.get("resumed_at_step")
    ]
    return statistics.median(rates) if rates else None
