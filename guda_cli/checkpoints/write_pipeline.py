"""A text-to-image model as an ordinary `StableDiffusionPipeline` folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guda_cli.checkpoints.pipeline_folder import Pipeline
from guda_cli.checkpoints.weights import DIFFUSION, TRANSFORMERS, prefixed_text_names
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError

# What the pipeline's class expects of a scheduler; those of Stable Diffusion 1.x and 2.x are so.
_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def write_pipeline(folder: Path, pipeline: Pipeline) -> None:
    """Write `pipeline` to the new folder `folder`; `StableDiffusionPipeline.from_pretrained` opens it.

    Weights are float32 safetensors. Without a safety checker, whose classifier is no part of the model. A
    scheduler's configuration without class becomes a `DDIMScheduler`'s. DataError when the folder exists and
    is not empty, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty", fix="name a new folder")
    from safetensors import SafetensorError

    try:
        _write(folder, pipeline)
    except (OSError, SafetensorError) as err:  # that one where the disk is full, too
        why = (err.strerror if isinstance(err, OSError) else "") or str(err)
        raise DataError(f"cannot write {folder}", why=why, fix="name a folder on another disk") from None


def _write(folder: Path, pipeline: Pipeline) -> None:
    parts = pipeline.components
    scheduler = _scheduler(pipeline.scheduler_config)
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    documents: dict[str, Mapping[str, Any]] = {
        "unet/config.json": {**pipeline.unet_config, "_class_name": "UNet2DConditionModel"},
        "vae/config.json": {**parts.vae_config, "_class_name": "AutoencoderKL"},
        "text_encoder/config.json": {
            "model_type": "clip_text_model",
            **parts.text_config,
            "architectures": ["CLIPTextModel"],
        },
        "scheduler/scheduler_config.json": scheduler,
        "model_index.json": _index(str(scheduler["_class_name"])),
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name, text in parts.tokenizer.items():
        (folder / "tokenizer" / Path(name).name).write_text(text, encoding="utf-8")
    _save(folder / "unet" / f"{DIFFUSION}.safetensors", pipeline.unet.tensors())
    _save(folder / "vae" / f"{DIFFUSION}.safetensors", parts.vae.tensors())
    text_encoder = prefixed_text_names(parts.text_encoder.tensors())
    _save(folder / "text_encoder" / f"{TRANSFORMERS}.safetensors", text_encoder)


def _index(scheduler: str) -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _scheduler(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` as it is where it names its class, else as that of a `DDIMScheduler`."""
    return dict(config) if config.get("_class_name") else {**_SCHEDULER, **config}


def _save(path: Path, weights: Weights) -> None:
    """With the metadata entry that the loaders of diffusers and transformers ask for."""
    from safetensors.torch import save_file

    save_file(weights, path, {"format": "pt"})
