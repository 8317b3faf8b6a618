"""Models to be made: known by their keys at once, their networks imported only when one must be run.

A `Task` is data, so that it can be told to another process or machine; `making.run_all` is the one place
where many are worked off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from guda_cli.sections import Recipe, to_dict
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import steps
from guda_cli.workflow.keys.operations import TRAIN, UNLEARN, Action
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project import needs, sharing
from guda_cli.workflow.project.project import Job, Made, Project

if TYPE_CHECKING:
    from guda_cli.workflow.models.build import Builder
    from guda_cli.workflow.models.loaded import Models
    from guda_cli.workflow.models.spaces import Space
    from guda_cli.workflow.project.compute import Compute


@dataclass(frozen=True)
class Task:
    """One model to be made: the full one, or one without `removal`; `seed` where it is not the recipe's."""

    operation: str
    removal: Removal | None = None
    seed: int | None = None

    def to_dict(self, recipe: Recipe) -> dict[str, Any]:
        """Plain values, with the settings that decide the numbers."""
        removal = self.removal.params if self.removal else None
        return {
            "operation": self.operation,
            "removal": removal,
            "seed": self.seed,
            "recipe": to_dict(recipe),
        }

    @staticmethod
    def of(values: Mapping[str, Any]) -> Task:
        """The inverse of `to_dict`, less the recipe."""
        return Task(values["operation"], Removal.of(values["removal"]), values["seed"])


FULL = Task(TRAIN)


class LazyJobs:
    """Makes jobs of tasks; torch is imported when the first of them is really run."""

    def __init__(self, project: Project, compute: Callable[[], Compute]) -> None:
        self.project, self._setup = project, compute
        self._models: Models | None = None

    @cached_property
    def compute(self) -> Compute:
        """The device, set up once; the weights that may be needed are hashed beside the imports."""
        self.project.begin_check()
        return self._setup()

    @cached_property
    def space(self) -> Space:
        """The data as networks see them."""
        from guda_cli.workflow.models.spaces import open_space

        return open_space(self.project, self.compute)

    @cached_property
    def builder(self) -> Builder:
        """What runs the networks."""
        from guda_cli.workflow.models.build import Builder

        return Builder(self.project, self.compute, self.space)

    def prepare(self) -> None:
        """Make what stands around the network: the models' keys need it.

        RecipeError for what cannot be trained, before any work.
        """
        needs.check(self.project.recipe)
        steps.check_params(self.project.recipe)
        if self.project.family.parts:
            self.space.prepare()

    def job(self, task: Task, full: ActionRecord | None = None, action: Action | None = None) -> Job:
        """The job of a task, which the project can run again where its outputs are damaged.

        `full` is the full model, of which an unlearning needs to know. `action` is the task's, where it has
        been worked out already.
        """
        recipe, data, what = self.project.recipe, self.project.data, task.removal
        if task.operation == UNLEARN:
            assert full is not None
            assert what is not None
            known = action or steps.unlearn(recipe, data, full, what, task.seed)
            return self._known(
                known, what, lambda: self.builder.unlearn(known, what, self.models(full), task.seed)
            )
        if task == FULL:
            action = self.project.full_action(data)
        known = action or steps.train(recipe, data, what, full, task.seed)
        return self._known(known, what, lambda: self.builder.train(known, what, full, task.seed))

    def models(self, full: ActionRecord) -> Models:
        """The networks, loaded once."""
        from guda_cli.workflow.models.loaded import Models

        if self._models is None or self._models.full.key != full.key:
            self._models = Models(self.project, full, self.compute, self.space)
        return self._models

    def adopt(self, models: Models) -> None:
        """Go on with networks that are loaded already, on the same device."""
        self._models, self.space = models, models.space

    def _known(self, action: Action, what: Removal | None, make: Callable[[], Made]) -> Job:
        job = Job(action, lambda: self._in_its_threads(action, what, make))
        self.project.knows(job)
        return job

    def _in_its_threads(self, action: Action, what: Removal | None, make: Callable[[], Made]) -> Made:
        """Make it with the number of threads that it always has here, whatever is made beside it."""
        from guda_cli.workflow.project.compute import with_threads

        most = self.compute.threads
        count = sharing.threads(self.project, action.operation, most) if what else most
        with with_threads(self.compute, count):
            return make()
