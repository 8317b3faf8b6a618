"""Running networks as steps: training, leave-one-group-out training, unlearning."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
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
from guda_cli.unlearning.together import unlearn_together
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.models.loaded import Models
from guda_cli.workflow.models.resume import run_hooks, saving_hooks
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
        problem = self._problem(removal, models, seed)
        frozen = self._frozen(models) if catalog.asks_full(problem.spec) else None
        with run_hooks(self.project, action) as (resume, hooks):
            trained = unlearning.unlearn(
                models.denoiser(self._trainable(models)), problem, teacher=frozen,
                scale=Scale.of(self.project.recipe.train), resume=resume, hooks=hooks,
            )  # fmt: skip
        return self._unlearned(action, removal, models, problem, trained, self._facts(resume, hooks))

    def unlearn_together(
        self,
        actions: Sequence[Action],
        removals: Sequence[Removal],
        models: Models,
        seed: int | None,
        tell: Callable[[float, float], None],
    ) -> list[Made]:
        """The same for several removals in one step each; `tell` hears the share done and the mean loss.

        `stacked.Parted` where each must go on alone.
        """
        problems = [self._problem(removal, models, seed) for removal in removals]
        spec, store = problems[0].spec, self.project.store
        saved = [store.load_state(action.key) for action in actions]
        resume = [RunState.from_bytes(*state) if state else None for state in saved]
        hooks = [saving_hooks(self.project, action) for action in actions]
        done, losses = (resume[0].step if resume[0] else 0), [0.0] * len(actions)

        def last(loss: float) -> None:
            nonlocal done
            losses[-1], done = loss, done + 1
            tell(done / spec.steps, sum(losses) / len(losses))

        for each, own in enumerate(hooks):
            own.on_step = partial(losses.__setitem__, each)
        hooks[-1].on_step = last
        tell(done / spec.steps, math.nan)
        trained = unlearn_together(
            models.denoiser(self._trainable(models)), problems, scale=Scale.of(self.project.recipe.train),
            teacher=self._frozen(models) if catalog.asks_full(spec) else None, resume=resume, hooks=hooks,
        )  # fmt: skip
        return [
            self._unlearned(
                action, what, models, problem, weights, self._facts(state, own) | {"together": len(actions)}
            )
            for action, what, problem, weights, state, own in zip(
                actions, removals, problems, trained, resume, hooks, strict=True
            )
        ]

    def _unlearned(
        self,
        action: Action,
        removal: Removal,
        models: Models,
        problem: Problem,
        trained: Weights,
        facts: dict[str, object],
    ) -> Made:
        """What is kept of `trained` weights, checked."""
        spec, forget = problem.spec, problem.forget
        kept = subsets.stored(trained, models.base, spec.params)
        verdict = plain(self._check(models, kept, removal, forget).to_dict())
        times = times_drawn(forget, spec)
        if not times:
            verdict["why"] = f"{never(spec.steps)}; {verdict['why']}"
            if verdict["verdict"] == judgement.PASSED:  # by chance: nothing of the group was unlearned
                verdict |= {"verdict": judgement.DOUBTFUL, "passed": False}
        found = {"images_removed": int(forget.sum()), "check": verdict, "drawn": times}
        packed = {"weights": PackedWeights(kept, action.what)}
        return Made({"check": canonical(verdict)}, facts | found, weights=packed)

    def _problem(self, removal: Removal, models: Models, seed: int | None) -> Problem:
        """With the recipe's seed, or `seed`; RecipeError for what the operator cannot do with this model."""
        recipe, space = self.project.recipe, self.space
        text = space.text_problem(removal)
        catalog.check(
            recipe.unlearn,
            models.stored.traits(recipe),
            styles=text.styles if text else None,
            removed=removal.groups,
        )
        null = models.denoiser(models.network).null
        spec = recipe.unlearn if seed is None else dataclasses.replace(recipe.unlearn, seed=seed)
        return Problem(
            space.training_images, self._members(removal), models.schedule, spec,
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
        full = looked.look(models.swapped({}), models.batch_size)
        return judgement.judge(full, looked.look(models.unlearned(kept), models.batch_size))

    def _held_out(self, removal: Removal, flip: bool) -> Shown | None:
        """Images that no training saw, some of the group; a random set of images has none of its own."""
        data = self.project.held_out()
        if data is None or removal.is_null:
            return None
        members = torch.from_numpy(removal.members(data))
        return Shown(self.space.taken_in(data), members, self.space.told_with(data), flip)

    def _facts(self, resume: RunState | None, hooks: Hooks) -> dict[str, object]:
        facts: dict[str, object] = {"device": self.compute.device.type, "threads": torch.get_num_threads()}
        if resume:
            facts |= {"seconds_before_resume": resume.seconds, "resumed_at_step": resume.step}
        if distributed.world() > 1:  # another number rounds otherwise
            facts["processes"] = distributed.world()
        if hooks.at_once is not None:  # smaller parts of a batch round otherwise
            facts["entries_at_once"] = hooks.at_once
        if not hooks.repeatable:
            facts["repeatable"] = False
        return facts | ({"skipped_steps": hooks.skipped} if hooks.skipped else {})
