"""Running networks as steps: training, leave-one-group-out training, unlearning."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from guda_cli.diffusion import networks
from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.weight_file import PackedWeights
from guda_cli.errors import DataError, MissingError, RecipeError
from guda_cli.jsonable import canonical, plain
from guda_cli.sections import subset_of
from guda_cli.store import ActionRecord
from guda_cli.training import distributed
from guda_cli.training import train as training
from guda_cli.training.loop import Hooks
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Scale
from guda_cli.unlearning import catalog, judgement, subsets
from guda_cli.unlearning import unlearn as unlearning
from guda_cli.unlearning.check import Check, Shown
from guda_cli.unlearning.drawn import never, times_drawn
from guda_cli.unlearning.judgement import CheckResult
from guda_cli.unlearning.operators.base import Problem
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.models.loaded import Models
from guda_cli.workflow.models.resume import run_hooks
from guda_cli.workflow.models.spaces import Space
from guda_cli.workflow.project.compute import Compute
from guda_cli.workflow.project.project import Made, Project


class Builder:
    """Trains and unlearns the models of one project on one device."""

    def __init__(self, project: Project, compute: Compute, space: Space) -> None:
        self.project, self.compute, self.space = project, compute, space
        self._teacher: Network | None = None

    def _members(self, removal: Removal) -> torch.Tensor:
        members = torch.from_numpy(removal.members(self.project.dataset()))
        if bool(members.all()):
            raise DataError(
                f"removing {removal.short} leaves no image", fix="a data set needs two groups or more"
            )
        return members

    # -- training ----------------------------------------------------------------------------------

    def train(
        self, action: Action, removal: Removal | None, full: ActionRecord | None, seed: int | None = None
    ) -> Made:
        """Train the full model, or one without `removal`; `seed` where it is not the recipe's."""
        spec, family = self.project.recipe.train, self.project.family
        if seed is not None:
            spec = dataclasses.replace(spec, seed=seed)
        config, weights = self._start(full)
        network = self._network(config[family.network], spec.seed, weights)
        denoiser = self.space.denoiser(network, family.schedule(config["scheduler"]))
        if weights is not None:
            subsets.prepare(network, spec.params, spec.seed)
        keep = ~self._members(removal) if removal else None
        with run_hooks(self.project, action) as (resume, hooks):
            trained = training.train(
                denoiser,
                self.space.training_images,
                spec,
                keep=keep,
                labels=self.space.training_conditions,
                dropout=self.space.dropout,
                resume=resume,
                hooks=hooks,
            )
        if weights is not None:
            trained = subsets.merge(weights, subsets.stored(trained, weights, spec.params))
        schedule = denoiser.schedule
        outputs = {
            "config": canonical(config),
            schedule.stored: schedule.to_bytes(),
        }
        facts = {"parameters": sum(v.numel() for v in trained.values())}
        packed = {"weights": PackedWeights(trained, action.what)}
        return Made(outputs, self._facts(resume, hooks) | facts, weights=packed)

    def _start(self, full: ActionRecord | None) -> tuple[dict[str, Any], Weights | None]:
        """The configuration of a training and the weights it starts from (None: drawn from the seed)."""
        project = self.project
        if project.recipe.model.base:
            base = project.store.lookup(project.recipe.model.base)
            if base is None:
                raise MissingError(
                    "the pipeline to start from is not in the store", fix="guda train --from DIR"
                )
            config = self.space.described(project.model(base).config)
            return config, project.weights(base, what="the pipeline to start from")
        if full is not None and project.model(full).registered:
            self._check_classes(full)
            return project.model(full).config, None
        config = project.family.configs(project.recipe, project.data.shape, project.data.counts)
        return self.space.described(config), None

    def _check_classes(self, full: ActionRecord) -> None:
        """RecipeError where images would be shown without a class, and the model has no null class."""
        classes, dropout = self.project.classes(full), self.project.recipe.train.class_dropout
        if classes is not None and classes.null is None and dropout:
            raise RecipeError(
                f"train.class_dropout is {dropout:g}, but the registered model has no null class",
                fix="--set train.class_dropout=0",
            )

    def _network(self, config: dict[str, Any], seed: int, weights: Weights | None) -> torch.nn.Module:
        """To be trained: from `weights`, which it has a copy of, or else from the seed."""
        if weights is not None:
            own = {name: value.to(self.compute.device, copy=True) for name, value in weights.items()}
            return self.project.family.sharing(config, own).train().requires_grad_(True)
        try:
            return networks.moved(self.project.family.build(config, seed), self.compute.device)
        except DataError as err:
            raise RecipeError(err.message, why=err.why, fix="guda recipes show digits") from None

    # -- unlearning --------------------------------------------------------------------------------

    def unlearn(self, action: Action, removal: Removal, models: Models, seed: int | None = None) -> Made:
        """Unlearn `removal` from the full model and check what that did, with the recipe's seed or `seed`."""
        problem = self._problem(removal, models)
        if seed is not None:
            problem = dataclasses.replace(problem, spec=dataclasses.replace(problem.spec, seed=seed))
        spec, forget = problem.spec, problem.forget
        frozen = self._frozen(models) if catalog.asks_full(spec) else None
        with run_hooks(self.project, action) as (resume, hooks):
            trained = unlearning.unlearn(
                models.denoiser(self._trainable(models)), problem, teacher=frozen,
                scale=Scale.of(self.project.recipe.train), resume=resume, hooks=hooks,
            )  # fmt: skip
        kept = subsets.stored(trained, models.base, spec.params)
        verdict = plain(self._check(models, kept, removal, forget).to_dict())
        times = times_drawn(forget, spec)
        if not times:
            verdict["why"] = f"{never(spec.steps)}; {verdict['why']}"
            if verdict["verdict"] == judgement.PASSED:  # by chance: nothing of the group was unlearned
                verdict |= {"verdict": judgement.DOUBTFUL, "passed": False}
        facts = {"images_removed": int(forget.sum()), "check": verdict, "drawn": times}
        packed = {"weights": PackedWeights(kept, action.what)}
        return Made({"check": canonical(verdict)}, self._facts(resume, hooks) | facts, weights=packed)

    def _problem(self, removal: Removal, models: Models) -> Problem:
        """RecipeError for what the operator cannot do with this full model."""
        recipe, space = self.project.recipe, self.space
        text = space.text_problem(removal)
        catalog.check(
            recipe.unlearn,
            models.stored.traits(recipe),
            styles=text.styles if text else None,
            removed=removal.groups,
        )
        null = models.denoiser(models.network).null
        return Problem(
            space.training_images, self._members(removal), models.schedule, recipe.unlearn,
            space.training_conditions, None if null is None else torch.tensor(null), space.dropout, text=text,
            flip=recipe.train.flip,
        )  # fmt: skip

    def _trainable(self, models: Models) -> torch.nn.Module:
        """A network to unlearn in; low-rank factors leave the weights alone, which it then shares."""
        low_rank = subset_of(self.project.recipe.unlearn.params)[0] == "lora"
        return models.frozen() if low_rank else models.fresh()

    def _frozen(self, models: Models) -> Network:
        if self._teacher is None:
            self._teacher = models.denoiser(models.frozen())
        return self._teacher

    def _check(self, models: Models, kept: Weights, removal: Removal, forget: torch.Tensor) -> CheckResult:
        spec, space, flip = self.project.recipe.unlearn, self.space, self.project.recipe.train.flip
        training = Shown(space.training_images, forget, space.training_conditions, flip)
        looked = Check(training, self._held_out(removal, flip), spec.steps, spec.batch_size)
        full, unlearned = (
            looked.look(models.swapped(changes), models.batch_size)
            for changes in ({}, subsets.changes(models.base, kept))
        )
        return judgement.judge(full, unlearned)

    def _held_out(self, removal: Removal, flip: bool) -> Shown | None:
        """Images that no training saw, some of the group; a random set of images has none of its own."""
        data = self.project.held_out()
        if data is None or removal.is_null:
            return None
        members = torch.from_numpy(removal.members(data))
        return Shown(self.space.taken_in(data), members, self.space.told_with(data), flip)

    def _facts(self, resume: RunState | None, hooks: Hooks) -> dict[str, object]:
        facts: dict[str, object] = {"device": self.compute.device.type, "threads": self.compute.threads}
        if resume:
            facts |= {"seconds_before_resume": resume.seconds, "resumed_at_step": resume.step}
        if distributed.world() > 1:  # another number rounds otherwise
            facts["processes"] = distributed.world()
        return facts | ({"skipped_steps": hooks.skipped} if hooks.skipped else {})
