"""Jobs that run networks: training, leave-one-group-out training, unlearning."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guda_cli.checkpoints.components import canonical
from guda_cli.data.classes import Classes
from guda_cli.diffusion import networks
from guda_cli.diffusion.denoiser import Network, UNetDenoiser
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.schedule import from_config
from guda_cli.errors import DataError, MissingError, RecipeError
from guda_cli.jsonable import plain
from guda_cli.sections import subset_of
from guda_cli.store import ActionRecord
from guda_cli.training import distributed
from guda_cli.training import train as training
from guda_cli.training.loop import Hooks
from guda_cli.training.run_state import RunState
from guda_cli.training.scale import Scale
from guda_cli.unlearning import catalog, check, subsets
from guda_cli.unlearning import run as unlearning
from guda_cli.unlearning.operators.base import Problem
from guda_cli.workflow.keys import steps
from guda_cli.workflow.keys.configs import configs
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.models.loaded import Models
from guda_cli.workflow.models.model_record import read_classes, schedule_bytes
from guda_cli.workflow.models.resume import run_hooks
from guda_cli.workflow.models.text_problem import text_problem
from guda_cli.workflow.project.compute import Compute
from guda_cli.workflow.project.project import Made, Project

if TYPE_CHECKING:
    from guda_cli.workflow.models.parts import Parts


class Builder:
    """Runs the jobs of one project on one device."""

    def __init__(self, project: Project, compute: Compute, parts: Parts | None) -> None:
        self.project, self.compute, self.parts = project, compute, parts
        self._teacher: Network | None = None

    @cached_property
    def images(self) -> torch.Tensor:
        """What the network is trained on: uint8 pixels [N, C, H, W], or latents."""
        return self.parts.latents if self.parts else torch.from_numpy(self.project.dataset().images)

    @cached_property
    def labels(self) -> torch.Tensor | None:
        """Condition of every image, int64 [N]: its prompt in the bank, or its class; None without conditions.

        A class is the image's group, in sorted order. RecipeError when an image is in several groups.
        """
        if self.parts:
            return self.parts.conditions
        if not self.project.recipe.model.class_conditional:
            return None
        steps.check_one_group(self.project.data)
        return torch.from_numpy(self.project.dataset().membership.argmax(axis=1).astype(np.int64))

    @property
    def dropout(self) -> float:
        """Share of the images shown without their condition."""
        spec = self.project.recipe.train
        return spec.prompt_dropout if self.parts else spec.class_dropout

    # -- work --------------------------------------------------------------------------------------

    def _members(self, removal: Removal) -> torch.Tensor:
        members = torch.from_numpy(removal.members(self.project.dataset()))
        if bool(members.all()):
            raise DataError(
                f"removing {removal.name} leaves no image", fix="a data set needs two groups or more"
            )
        return members

    def train(
        self, action: Action, removal: Removal | None, full: ActionRecord | None, seed: int | None = None
    ) -> Made:
        """Train the full model, or one without `removal`; `seed` where it is not the recipe's."""
        spec = self.project.recipe.train
        if seed is not None:
            spec = dataclasses.replace(spec, seed=seed)
        config, weights = self._start(full)
        denoiser = self._denoiser(config, spec.seed)
        if weights is not None:
            denoiser.network.load_state_dict(weights)
            subsets.prepare(denoiser.network, spec.params, spec.seed)
        keep = ~self._members(removal) if removal else None
        with run_hooks(self.project, action) as (resume, hooks):
            trained = training.train(
                denoiser,
                self.images,
                spec,
                keep=keep,
                labels=self.labels,
                dropout=self.dropout,
                resume=resume,
                hooks=hooks,
            )
        if weights is not None:
            trained = subsets.merge(weights, subsets.stored(trained, weights, spec.params))
        outputs = {
            "weights": networks.to_bytes(trained),
            "config": canonical(config),
            "betas": schedule_bytes(denoiser.schedule),
        }
        facts = {"parameters": sum(v.numel() for v in trained.values())}
        return Made(outputs, self._facts(resume, hooks) | facts)

    def _start(self, full: ActionRecord | None) -> tuple[dict[str, Any], Weights | None]:
        """The configuration of a training and the weights it starts from (None: drawn from the seed)."""
        project = self.project
        if project.recipe.model.base:
            base = project.store.lookup(project.recipe.model.base)
            if base is None:
                raise MissingError(
                    "the pipeline to start from is not in the store", fix="guda train --from DIR"
                )
            config = json.loads(project.read(base, "config"))
            if self.parts:  # those of a registered model, where it has others than its base
                config["parts"] = dict(self.parts.digests)
            return config, networks.from_bytes(project.read(base, "weights"))
        if full is not None and full.operation == "register":
            config = json.loads(project.read(full, "config"))
            self._check_classes(read_classes(project, full), project.recipe.train.class_dropout)
            return config, None
        config = configs(project.recipe, project.data.shape, project.data.counts)
        if self.parts:
            config |= {"parts": dict(self.parts.digests), "posterior": project.recipe.latent.posterior}
        return config, None

    def _check_classes(self, classes: Classes | None, dropout: float) -> None:
        if classes is not None and classes.null is None and dropout:
            raise RecipeError(
                f"train.class_dropout is {dropout:g}, but the registered model has no null class",
                fix="--set train.class_dropout=0",
            )

    def _denoiser(self, config: dict[str, Any], seed: int) -> Network:
        try:
            network = networks.build_unet(config["unet"], seed).to(self.compute.device)
        except DataError as err:
            raise RecipeError(
                err.message, why=err.why, fix="guda recipes show digits is a working example"
            ) from None
        schedule = from_config(config["scheduler"])
        return self.parts.space.denoiser(network, schedule) if self.parts else UNetDenoiser(network, schedule)

    def unlearn(self, action: Action, removal: Removal, models: Models) -> Made:
        """Unlearn `removal` from the full model and check what that did."""
        problem = self._problem(removal, models)
        spec, forget = problem.spec, problem.forget
        teacher = spec.retain == "distill" or spec.operator in catalog.NEED_FULL
        frozen = self._frozen(models) if teacher else None
        with run_hooks(self.project, action) as (resume, hooks):
            trained = unlearning.unlearn(
                models.denoiser(self._trainable(models)), problem, teacher=frozen,
                scale=Scale.of(self.project.recipe.train), resume=resume, hooks=hooks,
            )  # fmt: skip
        kept = subsets.stored(trained, models.base, spec.params)
        verdict = plain(self._check(models, kept, forget).to_dict())
        outputs = {"weights": networks.to_bytes(kept), "check": canonical(verdict)}
        facts = {"images_removed": int(forget.sum()), "check": verdict}
        return Made(outputs, self._facts(resume, hooks) | facts)

    def _problem(self, removal: Removal, models: Models) -> Problem:
        """RecipeError for what the operator cannot do with this full model."""
        recipe = self.project.recipe
        text = text_problem(self.project, self.parts, removal) if self.parts else None
        catalog.check(
            recipe.unlearn,
            models.config["unet"],
            conditional=recipe.model.class_conditional,
            text=text is not None,
            styles=text.styles if text else None,
            removed=removal.groups,
        )
        null = models.denoiser(models.network).null
        return Problem(
            self.images, self._members(removal), models.schedule, recipe.unlearn, self.labels,
            None if null is None else torch.tensor(null), self.dropout, text=text,
        )  # fmt: skip

    def _trainable(self, models: Models) -> torch.nn.Module:
        """A network to unlearn in; low-rank factors leave the weights alone, which it then shares."""
        low_rank = subset_of(self.project.recipe.unlearn.params)[0] == "lora"
        return models.frozen() if low_rank else models.fresh()

    def _frozen(self, models: Models) -> Network:
        if self._teacher is None:
            self._teacher = models.denoiser(models.frozen())
        return self._teacher

    def _check(self, models: Models, kept: Weights, forget: torch.Tensor) -> check.CheckResult:
        spec = self.project.recipe.unlearn
        side = check.side_of(spec.steps, spec.batch_size)
        sides = [check.evaluation_rows(mask, side) for mask in (forget, ~forget)]
        found = []
        for changes in ({}, subsets.changes(models.base, kept)):
            denoiser = models.swapped(changes)
            found.append(
                [
                    check.losses(denoiser, self.images, rows, models.batch_size, cond=self.labels)
                    for rows in sides
                ]
            )
        (group, rest), (group_after, rest_after) = found
        return check.judge((group, group_after), (rest, rest_after))

    def _facts(self, resume: RunState | None, hooks: Hooks) -> dict[str, object]:
        facts: dict[str, object] = {"device": self.compute.device.type, "threads": self.compute.threads}
        if resume:
            facts |= {"seconds_before_resume": resume.seconds, "resumed_at_step": resume.step}
        if distributed.world() > 1:  # another number rounds otherwise
            facts["processes"] = distributed.world()
        return facts | ({"skipped_steps": hooks.skipped} if hooks.skipped else {})
