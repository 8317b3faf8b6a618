"""`guda train --from`: models of others as the start of a training, or as the full model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from guda_cli.checkpoints.distilled import distilled
from guda_cli.checkpoints.files import is_hub_id
from guda_cli.data.styles import check_captions
from guda_cli.errors import DataError, UsageError
from guda_cli.families.family import CLASS, Family, Taken, Wanted
from guda_cli.families.known import UNNAMED, family_at, family_of, named
from guda_cli.jsonable import canonical
from guda_cli.sections import Recipe
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import PIPELINE, REGISTER
from guda_cli.workflow.keys.steps import check_one_group
from guda_cli.workflow.project.project import Output, Project

if TYPE_CHECKING:
    from torch import Tensor

SCALED = 4  # images whose latents are looked at before a pipeline is taken over


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a model of the user's lies, as the command line says it."""

    model: str
    base: str | None = None
    """The pipeline that it belongs to."""
    scheduler: str | None = None
    """Folder or file of its noise schedule."""
    as_is: bool = False
    """Whether it was trained on these images, and so is the full model."""

    def recipe_for(self, recipe: Recipe) -> Recipe:
        """`recipe` with the family of the pipeline, where it names none and both read prompts, or neither.

        One that is told classes makes the recipe class-conditional. DataError where it reads prompts and the
        recipe's models do not, or the other way round.
        """
        if recipe.model.family:
            return recipe
        found = family_at([place for place in (self.model, self.base) if place])
        if found is None or found is family_of(recipe) or found.name in UNNAMED:
            return recipe
        if found.prompts != recipe.model.text_conditional:
            raise self._other(found)
        model = dataclasses.replace(recipe.model, family=found.name)
        if found.told(recipe) == CLASS:
            model = dataclasses.replace(model, class_conditional=True)
        return dataclasses.replace(recipe, model=model)

    def _other(self, found: Family) -> DataError:
        reads, says = ("prompts", "false") if found.prompts else ("no prompts", "true")
        return DataError(
            f"{self.model} is a model of the family {found.name}, which reads {reads}",
            why=f"the recipe has model.text_conditional: {says}",
            fix="take a recipe with model.text_conditional: true, such as paintings"
            if found.prompts
            else "take a recipe without model.text_conditional",
        )

    def registers(self, family: Family) -> bool:
        """Whether it becomes the full model, and not the start of a training."""
        return self.as_is or not family.starts

    def beside(self, family: Family) -> str | None:
        """Where the rest of it lies."""
        return self.base if family.starts else self.scheduler

    def check(self, family: Family) -> None:
        """DataError for what is neither there nor a hub id, UsageError for what means nothing here."""
        for place in (self.model, self.base, self.scheduler):
            if place and not Path(place).expanduser().exists() and not is_hub_id(place):
                raise DataError(
                    f"no such file or folder: {place}",
                    fix="give a folder, a .safetensors file or OWNER/MODEL (a hub id)",
                )
        found = family_at([place for place in (self.model, self.base) if place]) if family.latent else None
        if found is not None and found.latent and found is not family:
            raise DataError(
                f"{self.model} is of the family {found.name}",
                why=f"the recipe is about {family.name}",
                fix=f"--set model.family={found.name}",
            )
        if family.starts and self.scheduler:
            raise UsageError(
                "--scheduler goes with models on pixels",
                why="a model on latents has its noise schedule from its pipeline",
                fix="--base PIPELINE",
            )
        if not family.starts and self.base:
            raise UsageError(
                "--base goes with models on latents",
                why="here the model that --from names is the full model, with all that it needs",
                fix="leave it out; --scheduler DIR names the noise schedule of a bare UNet",
            )


def start_from(project: Project, source: Source) -> Recipe:
    """The recipe whose training starts from the model at `source`."""
    record = _take_over(project, source.model, source.beside(project.family), PIPELINE)
    model = dataclasses.replace(project.recipe.model, base=record.key, registered=None)
    return dataclasses.replace(project.recipe, model=model)


def register(project: Project, source: Source) -> tuple[ActionRecord, Recipe]:
    """The record of the model at `source` as full model, and the recipe that has it.

    With a base that has weights, models without a group are trained from there; without, from scratch.
    DataError, before anything is trained, where the base is another architecture or has another noise.
    """
    family, beside = project.family, source.beside(project.family)
    taken = _read(project, source.model, beside, trained=True)
    record = _keep(
        project, taken, REGISTER, {"source": source.model, **_place(family, beside), **taken.facts}
    )
    start = None
    if family.starts and beside and family.begins_at(source.model, beside):
        begin = _take_over(project, beside, None, PIPELINE)
        _check_same_kind(project, record, begin, beside)
        start = begin.key
    elif family.starts and beside:
        project.console.say(
            f"{beside} gives the configuration only: models without a group would be trained from scratch"
        )
    recipe = family.taken_over(project.recipe, taken.facts)
    model = dataclasses.replace(recipe.model, registered=record.key, base=start)
    return record, dataclasses.replace(recipe, model=model)


def _place(family: Family, beside: str | None) -> dict[str, str | None]:
    """What a record says of where the rest of the model lay."""
    return {"base": beside} if family.starts else {}


def _take_over(project: Project, source: str, beside: str | None, operation: str) -> ActionRecord:
    taken = _read(project, source, beside, trained=False)
    return _keep(project, taken, operation, {"source": source, **_place(project.family, beside)})


def _read(project: Project, source: str, beside: str | None, *, trained: bool) -> Taken:
    """The model at `source`, checked against recipe and data; says what there is to say."""
    family, data = project.family, project.data
    if family.prompts:
        check_captions(project.dataset())

    def some() -> Tensor:
        import torch

        return torch.from_numpy(project.dataset().images[:SCALED])

    wanted = Wanted(project.recipe, data.shape, data.counts, lambda: check_one_group(data), some, trained)
    taken = family.take(source, beside, wanted)
    if family.prompts:
        project.console.say(f"{source} is of the family {family.name}")
    for note in taken.notes:
        project.console.say(note)
    for warning in taken.warnings:
        project.console.warn(warning)
    network, scheduler = (taken.config[part] for part in (family.network, "scheduler"))
    places = [place for place in (source, beside) if place and family.starts]
    looks = distilled(family.name, places or [source], network, scheduler)
    if looks:
        project.console.warn(looks)
    return taken


def _keep(project: Project, taken: Taken, operation: str, facts: dict[str, object]) -> ActionRecord:
    schedule = taken.schedule
    outputs: dict[str, Output] = {
        "weights": taken.weights,
        schedule.stored: schedule.to_bytes(),
        **taken.parts,
    }
    stored = {name: project.put(data) for name, data in outputs.items()}
    config = dict(taken.config)
    if taken.parts:
        config["parts"] = {name: stored[name] for name in taken.parts}
    outputs["config"] = canonical(named(project.family, config))
    stored["config"] = project.put(outputs["config"])
    what = "full model" if operation == REGISTER else "pipeline to start from"
    return project.keep(operation, outputs, what, facts, stored)


def _check_same_kind(project: Project, full: ActionRecord, begin: ActionRecord, base: str) -> None:
    """DataError unless models that begin at `base` can be compared with the full model."""
    ours, theirs = project.model(full), project.model(begin)
    one, two = (model.family.shapes(model.network) for model in (ours, theirs))
    if one != two:
        name = min(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
        sizes = [weights.get(name, "missing") for weights in (one, two)]
        raise DataError(
            f"the model and its base {base} are not of one architecture",
            why=f"{name} is {sizes[0]} in the model and {sizes[1]} in the base",
            fix="give the pipeline that the model was fine-tuned from, or leave --base out",
        )
    kinds = [model.prediction for model in (ours, theirs)]
    schedules = [{k: v for k, v in m.blobs.items() if k not in ("weights", "config")} for m in (ours, theirs)]
    if kinds[0] != kinds[1] or schedules[0] != schedules[1]:
        what = " and ".join(kinds) if kinds[0] != kinds[1] else "their betas differ"
        raise DataError(
            f"the model and its base {base} do not have one noise schedule",
            why=f"{what}: models that begin there would be scored with the wrong one",
            fix="give the pipeline that the model was fine-tuned from, or leave --base out",
        )
    other = [name for name in ours.family.parts if ours.parts[name] != theirs.parts[name]]
    if other:
        project.console.warn(
            f"the model's {', '.join(other)} {'is' if len(other) == 1 else 'are'} not the base's: models "
            "without a group begin at the base's network, but read the model's own, which saw every group"
        )
