"""`guda train --from`: take an existing diffusers model as the full model. Safetensors only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guda_cli.checkpoints.components import canonical
from guda_cli.checkpoints.files import download, is_hub_id, pickles_only, read_json
from guda_cli.errors import DataError
from guda_cli.sections import Recipe
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.steps import check_one_group
from guda_cli.workflow.models.model_record import schedule_bytes
from guda_cli.workflow.project.project import Project

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
LAYOUT = "give a DDPMPipeline or UNet2DModel folder"


def register(project: Project, source: str, scheduler: str | None) -> ActionRecord:
    """The record of `source` (a local folder or a hub id) as full model; checks that it fits the data.

    A `DDPMPipeline` folder holds `unet/` and `scheduler/`; a bare `UNet2DModel` folder needs `scheduler`,
    a folder or file with the noise schedule, or the recipe's `diffusion` section is used and said.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        if not is_hub_id(source):
            raise DataError(f"no such folder: {source}", fix="--from FOLDER or --from OWNER/MODEL (a hub id)")
        folder = download(source, ("*.json", "*.safetensors"), "download it and give the folder")
    unet_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    unet = read_json(unet_folder / "config.json", "network's configuration (config.json)", LAYOUT)
    _check_class(unet)
    classes = _classes(project, unet)
    schedule = _scheduler_config(project, folder, scheduler)
    _check_fits(project, unet)
    weights = _weights(unet_folder)
    network = {k: v for k, v in unet.items() if not k.startswith("_")}
    config: dict[str, Any] = {"unet": network, "scheduler": schedule}
    if classes:
        config["classes"] = classes
        network["null_class"] = unet["num_class_embeds"] > len(classes) and bool(unet.get("null_class", True))
    return _publish(project, source, config, weights)


def _publish(project: Project, source: str, config: dict[str, Any], data: bytes) -> ActionRecord:
    from guda_cli.diffusion import networks
    from guda_cli.diffusion.schedule import from_config

    try:
        weights = networks.from_bytes(data)
    except Exception as err:  # noqa: BLE001 - safetensors raises its own untyped error
        raise DataError(f"{source}: the weights are not readable safetensors", why=str(err)) from None
    networks.check_finite(weights, source)
    unet = networks.build_unet(config["unet"], seed=0)
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
    outputs = {
        "weights": networks.to_bytes(weights),
        "betas": schedule_bytes(schedule),
        "config": canonical(config),
    }
    facts = {
        "source": source,
        "classes": config.get("classes"),
        "null_class": config["unet"].get("null_class"),
    }
    return project.keep("register", outputs, "full model", facts)


def taken_over(recipe: Recipe, record: ActionRecord) -> Recipe:
    """`recipe` with the registered model of `record` as its full model, class-conditional where that is."""
    conditional = bool(record.provenance.get("classes"))
    model = dataclasses.replace(recipe.model, registered=record.key, class_conditional=conditional)
    if conditional and not record.provenance.get("null_class"):  # nothing to show instead of a class
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, class_dropout=0.0))
    return dataclasses.replace(recipe, model=model)


def _check_class(unet: Mapping[str, Any]) -> None:
    name = unet.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise DataError(f"the network is a {name}", why="a UNet2DModel is needed")
    if unet.get("class_embed_type"):
        raise DataError(
            f"the network's class_embed_type is '{unet['class_embed_type']}'",
            why="only unconditional models and those with num_class_embeds can be registered",
        )


def _classes(project: Project, unet: Mapping[str, Any]) -> list[str] | None:
    """The groups in sorted order, taken for the classes of a class-conditional network; None for others."""
    count = unet.get("num_class_embeds")
    if count is None:
        return None
    groups = sorted(project.data.counts)
    if count not in (len(groups), len(groups) + 1):
        raise DataError(
            f"the network has {count} classes, the data have {len(groups)} groups",
            why="class i is the i-th group in sorted order; one more is the null class",
            fix="choose the data's groups so that they are the network's classes (data.group, data.groups)",
        )
    check_one_group(project.data)
    project.console.say("its classes are taken to be, in this order: " + ", ".join(groups))
    return groups


def _scheduler_config(project: Project, folder: Path, given: str | None) -> dict[str, Any]:
    from guda_cli.sections import PREDICTION_TYPES, to_dict

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
    config = read_json(path / "scheduler_config.json" if path.is_dir() else path, "noise schedule", LAYOUT)
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
    refusal = pickles_only(folder, "the network") if folder.is_dir() else None
    if refusal:
        raise refusal
    sharded = list(folder.glob("*.safetensors.index.json"))
    why = "sharded weights are not supported" if sharded else f"looked for {' and '.join(WEIGHTS)}"
    raise DataError(f"{folder} has no weights that can be read", why=why)
