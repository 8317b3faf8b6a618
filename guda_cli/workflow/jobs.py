"""Jobs that run networks: training, leave-one-group-out training, unlearning."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch

from guda_cli.console import plain
from guda_cli.data.conditions import Classes
from guda_cli.diffusion.denoiser import UNetDenoiser
from guda_cli.diffusion.schedule import Schedule, from_config
from guda_cli.errors import DataError, RecipeError
from guda_cli.training import loop, model_io
from guda_cli.training import train as training
from guda_cli.training.state import RunState
from guda_cli.unlearning import catalog, check, subsets
from guda_cli.unlearning import unlearn as unlearning
from guda_cli.unlearning.operators import Problem
from guda_cli.workflow import actions
from guda_cli.workflow.actions import Action
from guda_cli.workflow.classes import read_classes
from guda_cli.workflow.compute import Compute
from guda_cli.workflow.configs import configs
from guda_cli.workflow.models import Models
from guda_cli.workflow.project import Made, Project
from guda_cli.workflow.removal import Removal
from store import ActionRecord


class Builder:
    """Runs the jobs of one project on one device."""

    def __init__(self, project: Project, compute: Compute) -> None:
        self.project, self.compute = project, compute
        self._teacher: UNetDenoiser | None = None

    @cached_property
    def images(self) -> torch.Tensor:
        """The dataset's pixels, uint8 [N, C, H, W]."""
        return torch.from_numpy(self.project.dataset().images)

    @cached_property
    def labels(self) -> torch.Tensor | None:
        """Class of every image, int64 [N], for a class-conditional recipe: its group, in sorted order.

        RecipeError when an image is in several groups.
        """
        if not self.project.recipe.model.class_conditional:
            return None
        actions.check_one_group(self.project.data)
        return torch.from_numpy(self.project.dataset().membership.argmax(axis=1).astype(np.int64))

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
        spec, data = self.project.recipe.train, self.project.data
        if seed is not None:
            spec = dataclasses.replace(spec, seed=seed)
        if full is not None and full.operation == "register":
            config = json.loads(self.project.read(full, "config"))
            self._check_classes(read_classes(self.project, full), spec.class_dropout)
        else:
            config = configs(self.project.recipe, data.shape, data.counts)
        labels = self.labels
        unet = self._network(config, spec.seed)
        schedule = from_config(config["scheduler"])
        keep = ~self._members(removal) if removal else None
        with self._hooks(action) as (resume, hooks):
            weights = training.train(
                UNetDenoiser(unet, schedule),
                self.images,
                spec,
                keep=keep,
                labels=labels,
                dropout=spec.class_dropout,
                resume=resume,
                hooks=hooks,
            )
        outputs = {"weights": model_io.to_bytes(weights), "config": _json(config), "betas": _betas(schedule)}
        return Made(outputs, self._facts(resume) | {"parameters": sum(v.numel() for v in weights.values())})

    def _check_classes(self, classes: Classes | None, dropout: float) -> None:
        if classes is not None and classes.null is None and dropout:
            raise RecipeError(
                f"train.class_dropout is {dropout:g}, but the registered model has no null class",
                fix="--set train.class_dropout=0",
            )

    def _network(self, config: dict[str, dict[str, object]], seed: int) -> torch.nn.Module:
        try:
            return model_io.build_unet(config["unet"], seed).to(self.compute.device)
        except DataError as err:
            raise RecipeError(
                err.message, why=err.why, fix="guda recipes show digits is a working example"
            ) from None

    def unlearn(self, action: Action, removal: Removal, models: Models) -> Made:
        """Unlearn `removal` from the full model and check what that did."""
        problem = self._problem(self._members(removal), models)
        spec, forget = problem.spec, problem.forget
        teacher = spec.retain == "distill" or spec.operator in catalog.NEED_FULL
        frozen = self._frozen(models) if teacher else None
        with self._hooks(action) as (resume, hooks):
            trained = unlearning.unlearn(
                UNetDenoiser(models.fresh(), models.schedule),
                problem,
                teacher=frozen,
                resume=resume,
                hooks=hooks,
            )
        kept = subsets.stored(trained, models.base, spec.params)
        unet = models.fresh()
        unet.load_state_dict(subsets.merge(models.base, kept))
        after = UNetDenoiser(unet.eval(), models.schedule)
        verdict = plain(self._check(models, after, forget).to_dict())
        outputs = {"weights": model_io.to_bytes(kept), "check": _json(verdict)}
        facts = {"images_removed": int(forget.sum()), "check": verdict}
        return Made(outputs, self._facts(resume) | facts)

    def _problem(self, forget: torch.Tensor, models: Models) -> Problem:
        """RecipeError for what the operator cannot do with this full model."""
        recipe = self.project.recipe
        catalog.check(recipe.unlearn, models.config["unet"], conditional=recipe.model.class_conditional)
        null = UNetDenoiser(models.unet, models.schedule).null_class
        return Problem(
            self.images, forget, models.schedule, recipe.unlearn, self.labels,
            None if null is None else torch.tensor(null), recipe.train.class_dropout,
        )  # fmt: skip

    def _frozen(self, models: Models) -> UNetDenoiser:
        if self._teacher is None:
            self._teacher = UNetDenoiser(models.fresh().eval().requires_grad_(False), models.schedule)
        return self._teacher

    def _check(self, models: Models, after: UNetDenoiser, forget: torch.Tensor) -> check.CheckResult:
        before = models.use(models.full)
        sides = [check.evaluation_rows(mask) for mask in (forget, ~forget)]
        group, rest = (
            (
                check.losses(before, self.images, rows, cond=self.labels),
                check.losses(after, self.images, rows, cond=self.labels),
            )
            for rows in sides
        )
        return check.judge(group, rest)

    # -- resume state and progress -----------------------------------------------------------------

    @contextmanager
    def _hooks(self, action: Action) -> Iterator[tuple[RunState | None, loop.Hooks]]:
        store = self.project.store
        saved = store.load_state(action.key)
        resume = RunState.from_bytes(*saved) if saved else None
        if resume:
            self.project.console.say(f"{action.what}: going on at step {resume.step} of {action.steps}")
        done = resume.step if resume else 0
        with self.project.console.progress(action.what, action.steps, start=done) as bar:
            hooks = loop.Hooks(
                on_step=lambda loss: bar.advance(1, loss=loss),
                save=lambda state: store.save_state(action.key, state.step, state.to_bytes()),
                save_seconds=float(os.environ.get("GUDA_CHECKPOINT_SECONDS") or 20.0),
            )
            yield resume, hooks

    def _facts(self, resume: RunState | None) -> dict[str, object]:
        earlier = {"seconds_before_resume": resume.seconds, "resumed_at_step": resume.step} if resume else {}
        return earlier | {"device": self.compute.device.type, "threads": self.compute.threads}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _betas(schedule: Schedule) -> bytes:
    return np.ascontiguousarray(schedule.betas, dtype="<f8").tobytes()
