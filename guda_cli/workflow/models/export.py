"""Models out of the store, as ordinary diffusers folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guda_cli.errors import DataError, UsageError
from guda_cli.store import ActionRecord, Store


def export_model(store: Store, record: ActionRecord, folder: Path) -> None:
    """Write a trained, registered or unlearned model as a pipeline folder of diffusers.

    `DDPMPipeline.from_pretrained(folder)` opens it, `StableDiffusionPipeline` where it reads text.
    UsageError when the record is no model, DataError when
    the folder exists and is not empty.
    """
    if "weights" not in record.outputs:
        raise UsageError(
            f"{record.key[:10]} ({record.operation}) is no model", fix="guda store ls shows the models"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty", fix="name a new folder")
    origin = record.inputs if record.operation == "unlearn" else record.outputs
    config = json.loads(store.read_bytes(origin["config"]))
    weights = store.read_bytes(record.outputs["weights"])
    if record.operation == "unlearn":
        weights = _apply_delta(store.read_bytes(record.inputs["weights"]), weights)
    if "parts" in config:
        _write_pipeline(store, folder, config, weights)
        return
    try:
        _write(folder, config, weights)
    except OSError as err:
        raise DataError(f"cannot write {folder}", why=err.strerror or str(err)) from None


def _write_pipeline(store: Store, folder: Path, config: dict[str, Any], weights: bytes) -> None:
    from guda_cli.checkpoints.components import Components
    from guda_cli.checkpoints.pipeline_folder import Pipeline
    from guda_cli.checkpoints.write_pipeline import write_pipeline

    parts = Components.from_blobs({name: store.read_bytes(blob) for name, blob in config["parts"].items()})
    write_pipeline(folder, Pipeline(weights, config["unet"], config["scheduler"], parts))


def _apply_delta(base: bytes, delta: bytes) -> bytes:
    from guda_cli.diffusion import networks
    from guda_cli.unlearning import subsets

    return networks.to_bytes(subsets.merge(networks.from_bytes(base), networks.from_bytes(delta)))


def _write(folder: Path, config: dict[str, Any], weights: bytes) -> None:
    for part in ("unet", "scheduler"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(_with_format(weights))
    documents = {
        "model_index.json": index,
        "unet/config.json": {"_class_name": "UNet2DModel", **config["unet"]},
        "scheduler/scheduler_config.json": {"_class_name": "DDPMScheduler", **config["scheduler"]},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _with_format(weights: bytes) -> bytes:
    """The same tensors with the metadata entry that diffusers' loader asks for."""
    from safetensors.torch import load, save

    return bytes(save(load(weights), {"format": "pt"}))
