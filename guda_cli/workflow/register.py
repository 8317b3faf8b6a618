"""`guda train --from`: take an existing diffusers model as the full model. Safetensors only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from guda_cli.errors import DataError, MissingError
from guda_cli.workflow.actions import Action
from guda_cli.workflow.project import Job, Made, Project
from store import ActionRecord

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def register(project: Project, source: str, scheduler: str | None) -> ActionRecord:
    """The record of `source` (a local folder or a hub id) as full model; checks that it fits the data.

    A `DDPMPipeline` folder holds `unet/` and `scheduler/`; a bare `UNet2DModel` folder needs `scheduler`,
    a folder or file with the noise schedule, or the recipe's `diffusion` section is used and said.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        folder = _download(source)
    unet_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    unet = _json(unet_folder / "config.json", "the network's configuration")
    _check_class(unet)
    schedule = _scheduler_config(project, folder, scheduler)
    _check_fits(project, unet)
    weights = _weights(unet_folder)
    config = {"unet": {k: v for k, v in unet.items() if not k.startswith("_")}, "scheduler": schedule}
    return _publish(project, source, config, weights)


def _publish(project: Project, source: str, config: dict[str, Any], data: bytes) -> ActionRecord:
    from guda_cli.diffusion.schedule import from_config
    from guda_cli.training import model_io

    try:
        weights = model_io.from_bytes(data)
    except Exception as err:  # noqa: BLE001 - safetensors raises its own untyped error
        raise DataError(f"{source}: the weights are not readable safetensors", why=str(err)) from None
    model_io.check_finite(weights, source)
    unet = model_io.build_unet(config["unet"], seed=0)
    try:
        unet.load_state_dict(weights)
    except RuntimeError as err:
        raise DataError(
            f"{source}: the weights do not fit config.json", why=str(err).splitlines()[-1].strip()
        ) from None
    try:
        schedule = from_config(config["scheduler"])
    except (NotImplementedError, TypeError, ValueError) as err:
        raise DataError(f"{source}: diffusers cannot build this noise schedule", why=str(err)) from None
    betas = np.ascontiguousarray(schedule.betas, dtype="<f8").tobytes()
    outputs = {
        "weights": model_io.to_bytes(weights),
        "betas": betas,
        "config": json.dumps(config, sort_keys=True, separators=(",", ":")).encode(),
    }
    digests = {name: project.store.put_bytes(blob) for name, blob in outputs.items()}
    action = Action("register", {"digests": digests}, {}, "full model")
    return project.ensure(Job(action, lambda: Made(outputs, {"source": source})))


def _download(source: str) -> Path:
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise DataError(f"no such folder: {source}", fix="--from FOLDER or --from OWNER/MODEL (a hub id)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as err:  # noqa: BLE001 - offline, gated, unknown: the hub has many errors, one remedy
        raise MissingError(
            f"cannot fetch {source} from the hub",
            why=str(err).splitlines()[0],
            fix="download it and give the folder",
        ) from None


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: {what} is missing", fix="give a DDPMPipeline or UNet2DModel folder"
        ) from None
    except (OSError, ValueError) as err:
        raise DataError(f"{path}: {what} cannot be read", why=str(err)) from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: {what} is not a JSON object")
    return value


def _check_class(unet: Mapping[str, Any]) -> None:
    name = unet.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise DataError(f"the network is a {name}", why="an unconditional UNet2DModel is needed")
    if unet.get("num_class_embeds") or unet.get("class_embed_type"):
        raise DataError(
            "the network is class-conditional", why="only unconditional models can be registered so far"
        )


def _scheduler_config(project: Project, folder: Path, given: str | None) -> dict[str, Any]:
    from guda_cli.recipe import PREDICTION_TYPES, to_dict

    if given:
        path = Path(given).expanduser()
    else:
        path = folder / "scheduler"
        if not path.exists():
            if (folder / "unet").is_dir():
                raise DataError(f"{folder}: the pipeline has no scheduler/", fix="--scheduler FOLDER")
            project.console.warn(
                "no noise schedule given (--scheduler DIR): the recipe's diffusion section is used"
            )
            return to_dict(project.recipe.diffusion)
    config = _json(path / "scheduler_config.json" if path.is_dir() else path, "the noise schedule")
    if config.get("beta_schedule") is None and config.get("trained_betas") is None:
        raise DataError(f"{path}: no beta_schedule", why="a noise schedule like DDPMScheduler's is needed")
    kind = config.get("prediction_type") or "epsilon"
    if kind not in PREDICTION_TYPES:
        raise DataError(f"{path}: prediction_type '{kind}'", why="one of " + ", ".join(PREDICTION_TYPES))
    return {k: v for k, v in config.items() if not k.startswith("_")}


def _check_fits(project: Project, unet: Mapping[str, Any]) -> None:
    channels, size, _ = project.data.shape
    wanted = unet.get("in_channels", 3), unet.get("sample_size", size)
    if isinstance(wanted[1], list):
        wanted = wanted[0], wanted[1][0]
    if wanted[0] != channels or (wanted[1] is not None and wanted[1] != size):
        raise DataError(
            f"the model takes {wanted[0]} x {wanted[1]} x {wanted[1]} images, the recipe gives "
            f"{channels} x {size} x {size}",
            fix=f"--set data.channels={wanted[0]} --set data.size={wanted[1]}",
        )
    if unet.get("out_channels", channels) not in (channels, 2 * channels):
        raise DataError(
            f"the network has {unet.get('out_channels')} output channels for {channels} input channels"
        )


def _weights(folder: Path) -> bytes:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES) if folder.is_dir() else []
    if pickles:
        raise DataError(
            f"{folder} has no safetensors weights, only {pickles[0]}",
            why="a pickle can run any code when it is loaded, so it is never opened",
            fix="save the model again with safe_serialization=True",
        )
    sharded = list(folder.glob("*.safetensors.index.json"))
    why = "sharded weights are not supported" if sharded else f"looked for {' and '.join(WEIGHTS)}"
    raise DataError(f"{folder} has no weights that can be read", why=why)
