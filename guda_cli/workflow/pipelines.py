"""Taking over text-to-image models: as the start of a training, or as the full model. Safetensors only."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from guda_cli.diffusion.schedule import from_config
from guda_cli.errors import DataError
from guda_cli.latent.components import BLOBS, canonical, scale_factor
from guda_cli.latent.pipeline_folder import Pipeline
from guda_cli.latent.source import register_source
from guda_cli.recipe import Recipe
from guda_cli.workflow.configs import TEXT_CLASS
from guda_cli.workflow.project import Project
from guda_cli.workflow.schedules import schedule_bytes
from store import ActionRecord


def start_from(project: Project, source: str, base: str | None) -> Recipe:
    """The recipe whose training starts from the model at `source` (see `register_source`)."""
    record = _take_over(project, source, base, "pipeline")
    return dataclasses.replace(
        project.recipe, model=dataclasses.replace(project.recipe.model, base=record.key, registered=None)
    )


def register(project: Project, source: str, base: str | None) -> tuple[ActionRecord, Recipe]:
    """The record of the model at `source` as full model, and the recipe that has it.

    With `base`, models without a group are trained from there; without, from scratch.
    """
    record = _take_over(project, source, base, "register")
    start = _take_over(project, base, None, "pipeline").key if base else None
    model = dataclasses.replace(project.recipe.model, registered=record.key, base=start)
    return record, dataclasses.replace(project.recipe, model=model)


def _take_over(project: Project, source: str, base: str | None, operation: str) -> ActionRecord:
    pipeline = register_source(source, base)
    for note in pipeline.notes:
        project.console.say(note)
    _check_fits(project, pipeline)
    what = "full model" if operation == "register" else "pipeline to start from"
    return project.keep(operation, _outputs(project, pipeline), what, {"source": source, "base": base})


def _outputs(project: Project, pipeline: Pipeline) -> dict[str, bytes]:
    try:
        schedule = from_config(pipeline.scheduler_config)
    except (NotImplementedError, TypeError, ValueError) as err:
        raise DataError("diffusers cannot build the pipeline's noise schedule", why=str(err)) from None
    parts = pipeline.components.to_blobs()
    config: dict[str, Any] = {
        "unet": {**pipeline.unet_config, "_class_name": TEXT_CLASS},
        "scheduler": dict(pipeline.scheduler_config),
        "parts": {name: hashlib.sha256(parts[name]).hexdigest() for name in BLOBS},
        "posterior": project.recipe.latent.posterior,
    }
    model = {"weights": pipeline.unet, "config": canonical(config), "betas": schedule_bytes(schedule)}
    return model | parts


def _check_fits(project: Project, pipeline: Pipeline) -> None:
    """DataError where the recipe's images are not such as the pipeline takes."""
    channels, size, _ = project.data.shape
    config, factor = pipeline.components.vae_config, scale_factor(pipeline.components.vae_config)
    if config.get("in_channels", 3) != channels:
        raise DataError(
            f"the pipeline's VAE takes {config.get('in_channels', 3)} channels, the recipe gives {channels}",
            fix=f"--set data.channels={config.get('in_channels', 3)}",
        )
    levels = len(pipeline.unet_config["block_out_channels"])
    multiple = factor * 2 ** (levels - 1)
    if size % multiple:
        raise DataError(
            f"data.size = {size} is no multiple of {multiple}, as this pipeline needs",
            fix=f"--set data.size={max(multiple, size // multiple * multiple)}",
        )
    trained = int(pipeline.unet_config.get("sample_size") or 0) * factor
    if trained and trained != size:
        project.console.warn(
            f"the pipeline was trained on {trained} x {trained} images, the recipe gives {size} x {size}"
        )
