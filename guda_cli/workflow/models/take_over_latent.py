"""Taking over text-to-image models: as the start of a training, or as the full model. Safetensors only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import torch

from guda_cli.checkpoints.components import BLOBS, canonical, scale_factor
from guda_cli.checkpoints.model_source import begins_at, register_source
from guda_cli.checkpoints.pipeline_folder import Pipeline
from guda_cli.data.styles import check_captions
from guda_cli.diffusion import networks
from guda_cli.diffusion.schedule import from_config
from guda_cli.errors import DataError
from guda_cli.latent.vae import LatentCodec, check_overflow
from guda_cli.sections import Recipe
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.configs import TEXT_CLASS
from guda_cli.workflow.models.model_record import schedule_bytes
from guda_cli.workflow.project.project import Project

SCALED = 4  # images whose latents are looked at before a pipeline is taken over


def start_from(project: Project, source: str, base: str | None) -> Recipe:
    """The recipe whose training starts from the model at `source` (see `register_source`)."""
    check_captions(project.dataset())
    record = _take_over(project, source, base, "pipeline")
    return dataclasses.replace(
        project.recipe, model=dataclasses.replace(project.recipe.model, base=record.key, registered=None)
    )


def register(project: Project, source: str, base: str | None) -> tuple[ActionRecord, Recipe]:
    """The record of the model at `source` as full model, and the recipe that has it.

    With a `base` that has weights, models without a group are trained from there; without, from scratch.
    DataError, before anything is trained, where the base is another architecture or has another noise.
    """
    check_captions(project.dataset())
    record = _take_over(project, source, base, "register")
    start = None
    if base and begins_at(source, base):
        begin = _take_over(project, base, None, "pipeline")
        _check_same_kind(project, record, begin, base)
        start = begin.key
    elif base:
        project.console.say(
            f"{base} gives the configuration only: models without a group would be trained from scratch"
        )
    model = dataclasses.replace(project.recipe.model, registered=record.key, base=start)
    return record, dataclasses.replace(project.recipe, model=model)


def _take_over(project: Project, source: str, base: str | None, operation: str) -> ActionRecord:
    pipeline = register_source(source, base)
    for note in pipeline.notes:
        project.console.say(note)
    _check_fits(project, pipeline)
    _check_scaling(project, pipeline)
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


def _check_scaling(project: Project, pipeline: Pipeline) -> None:
    """DataError where a few images' latents are so large that the VAE's scale must have been forgotten."""
    if not project.recipe.latent.check_scaling:
        return
    parts = pipeline.components
    codec = LatentCodec(parts.vae, parts.vae_config)
    check_overflow(codec.encode(torch.from_numpy(project.dataset().images[:SCALED])))


def _check_same_kind(project: Project, full: ActionRecord, begin: ActionRecord, base: str) -> None:
    """DataError unless models that begin at `base` can be compared with the full model."""
    ours, theirs = (json.loads(project.read(record, "config")) for record in (full, begin))
    one, two = (networks.shapes(config["unet"]) for config in (ours, theirs))
    if one != two:
        name = min(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
        sizes = [weights.get(name, "missing") for weights in (one, two)]
        raise DataError(
            f"the model and its base {base} are not of one architecture",
            why=f"{name} is {sizes[0]} in the model and {sizes[1]} in the base",
            fix="--base PIPELINE that the model was fine-tuned from; or leave --base out",
        )
    kinds = [config["scheduler"].get("prediction_type") or "epsilon" for config in (ours, theirs)]
    if kinds[0] != kinds[1] or full.outputs["betas"] != begin.outputs["betas"]:
        what = " and ".join(kinds) if kinds[0] != kinds[1] else "their betas differ"
        raise DataError(
            f"the model and its base {base} do not have one noise schedule",
            why=f"{what}: models that begin there would be scored with the wrong one",
            fix="--base PIPELINE that the model was fine-tuned from; or leave --base out",
        )
    other = [name for name in BLOBS if ours["parts"][name] != theirs["parts"][name]]
    if other:
        project.console.warn(
            f"the model's {', '.join(other)} {'is' if len(other) == 1 else 'are'} not the base's: models "
            "without a group begin at the base's network, but read the model's own, which saw every group"
        )
