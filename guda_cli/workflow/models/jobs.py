"""Jobs whose keys are known at once but whose networks are imported only when something must run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from guda_cli.errors import RecipeError
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import steps
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.project import Job, Made, Project

if TYPE_CHECKING:
    from guda_cli.workflow.models.build import Builder
    from guda_cli.workflow.models.loaded import Models
    from guda_cli.workflow.models.parts import Parts
    from guda_cli.workflow.project.compute import Compute


class LazyJobs:
    """Makes jobs; torch is imported when the first of them is really run."""

    def __init__(self, project: Project, compute: Callable[[], Compute]) -> None:
        self.project, self._setup = project, compute
        self._models: Models | None = None

    @cached_property
    def compute(self) -> Compute:
        """The device, set up once."""
        return self._setup()

    @cached_property
    def builder(self) -> Builder:
        """What runs the networks."""
        from guda_cli.workflow.models.build import Builder

        return Builder(self.project, self.compute, self.parts)

    @cached_property
    def parts(self) -> Parts | None:
        """VAE, text encoder and what they make of the data; None where the network works on pixels."""
        if not self.project.recipe.model.text_conditional:
            return None
        if importlib.util.find_spec("transformers") is None:
            raise RecipeError(
                "text-to-image recipes need the package transformers", fix="pip install 'guda[text]'"
            )
        from guda_cli.workflow.models.parts import Parts

        return Parts(self.project, self.compute)

    def prepare(self) -> None:
        """Make what stands around a text-to-image network: the models' keys need it.

        RecipeError for what cannot be trained, before any work.
        """
        steps.check_params(self.project.recipe)
        if self.parts and not self.project.has_parts(self.project.data):
            self.parts.ensure()

    def full(self) -> Job:
        """Training the full model; `prepare` comes first."""
        action = steps.train(self.project.recipe, self.project.data, None)
        return self._job(action, lambda: self.builder.train(action, None, None))

    def without(self, what: Removal, full: ActionRecord | None, seed: int | None = None) -> Job:
        """Training a leave-one-group-out model, perhaps with another seed than the full model's."""
        action = steps.train(self.project.recipe, self.project.data, what, full, seed)
        return self._job(action, lambda: self.builder.train(action, what, full, seed))

    def unlearned(self, what: Removal, full: ActionRecord) -> Job:
        """Unlearning from the full model."""
        action = steps.unlearn(self.project.recipe, self.project.data, full, what)
        return self._job(action, lambda: self.builder.unlearn(action, what, self.models(full)))

    def models(self, full: ActionRecord) -> Models:
        """The networks, loaded once."""
        from guda_cli.workflow.models.loaded import Models

        if self._models is None or self._models.full.key != full.key:
            self._models = Models(self.project, full, self.compute, self.parts)
        return self._models

    def _job(self, action: Action, make: Callable[[], Made]) -> Job:
        job = Job(action, make)
        self.project.knows(job)
        return job
