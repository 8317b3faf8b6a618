"""A Stable Diffusion model in the layout of a `StableDiffusionPipeline` folder, read into plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guda_cli.checkpoints import supported
from guda_cli.checkpoints.components import Components
from guda_cli.checkpoints.files import download, is_hub_id, read_json
from guda_cli.checkpoints.supported import CLASSES, Config
from guda_cli.checkpoints.tokenizer_files import read_tokenizer
from guda_cli.checkpoints.weights import (
    DIFFUSION,
    TRANSFORMERS,
    check_fit,
    modern_vae_names,
    plain_text_names,
    read_weights,
)
from guda_cli.data.sources.hub_cache import snapshot_in
from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError, UsageError

TEXTS = ("*.json", "*.txt", "*.model")
"""Files of a hub model that are fetched for its configuration; none of them can run code."""
ADAPTER = "adapter_model.safetensors"
LORA_NAMES = ("pytorch_lora_weights.safetensors", ADAPTER)
WANTED = (*TEXTS, "*/*.safetensors", f"{DIFFUSION}*.safetensors", *LORA_NAMES)
"""With the weights of its components, without the copies in one file that lie beside them."""
UNWANTED = ("safety_checker/*", "image_encoder/*", "*.non_ema*", "*.onnx*")


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A text-to-image model with everything that is needed to run it.

    Configurations are those of the files without what says where they came from; `_class_name` stays.
    """

    unet: bytes
    """Weights of a `UNet2DConditionModel`, float32 safetensors under its names."""
    unet_config: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    components: Components
    notes: tuple[str, ...] = ()
    """What was put in for want of information, as sentences for the user."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """What a pipeline folder says beside its weights, checked to fit together."""

    unet: Config
    vae: Config
    text: Config
    scheduler: Config
    tokenizer: dict[str, str]
    notes: tuple[str, ...]


def read_pipeline(source: str) -> Pipeline:
    """The pipeline in the folder `source`, or of the hub id OWNER/MODEL (fetched without pickles).

    Stable Diffusion 1.x and 2.x, safetensors, one file or shards, any variant; stored as float32. DataError
    for anything else, for missing components and for parts that do not fit each other or their weights;
    MissingError when the hub cannot be reached. Configurations are checked before weights are read.
    """
    folder = locate(source)
    configuration = read_configuration(folder)
    unet, note = _read_unet(folder, configuration)
    components, notes = read_components(folder, configuration)
    return Pipeline(
        unet, configuration.unet, configuration.scheduler, components, (*configuration.notes, *note, *notes)
    )


def read_unet_folder(folder: Path) -> tuple[bytes, Config]:
    """Weights and configuration of a bare `UNet2DConditionModel` folder; DataError as for a pipeline's."""
    config = read_unet_config(folder)
    weights, _ = read_weights(folder, DIFFUSION, "the unet")
    return unet_bytes(weights, config, str(folder)), config


def read_unet_config(folder: Path) -> Config:
    """The configuration of a bare `UNet2DConditionModel` folder; DataError unless it can be used."""
    config = supported.settings(read_json(folder / "config.json", "configuration (config.json)"))
    return supported.checked_unet(config, str(folder))


def locate(source: str, *, weights: bool = True) -> Path:
    """The folder `source`, or that of the hub id `source`, downloaded without pickles.

    DataError when it is neither; MissingError when the hub does not give it.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return snapshot_in(folder)
    if folder.exists() or not is_hub_id(source):
        raise DataError(f"no such folder: {source}", fix="give a folder or OWNER/MODEL (a hub id)")
    return download(source, WANTED if weights else TEXTS, "download it and give the folder", UNWANTED)


def read_configuration(folder: Path) -> Configuration:
    """Everything in a pipeline folder but its weights; DataError unless it is a supported pipeline."""
    hint = "give a StableDiffusionPipeline folder"
    if (folder / "unet").is_dir():
        hint += f"; a unet alone is taken as {folder / 'unet'} over --base PIPELINE"
    index = read_json(folder / "model_index.json", "pipeline index (model_index.json)", hint)
    supported.check_index(index, str(folder))
    for part in (*CLASSES, "scheduler"):
        if not (folder / part).is_dir():
            raise DataError(f"the pipeline in {folder} has no {part}/", why=supported.SUPPORTED, fix=hint)
    unet, vae, text = (
        supported.settings(read_json(folder / part / "config.json", f"{part} configuration (config.json)"))
        for part in ("unet", "vae", "text_encoder")
    )
    unet = supported.checked_unet(unet, str(folder))
    vae, notes = supported.checked_vae(vae, str(folder))
    text = supported.checked_text(text, str(folder))
    supported.check_together(unet, vae, text, str(folder))
    tokenizer, more = read_tokenizer(folder / "tokenizer", text)
    return Configuration(unet, vae, text, _scheduler(folder), tokenizer, (*notes, *more))


def read_components(folder: Path, configuration: Configuration) -> tuple[Components, tuple[str, ...]]:
    """VAE, text encoder and tokenizer of a pipeline folder, and notes on their files."""
    vae, first = _read(folder, "vae")
    text, second = _read(folder, "text_encoder")
    return components_of(vae, text, configuration, str(folder)), (*first, *second)


def unet_bytes(weights: Weights, config: Mapping[str, Any], where: str) -> bytes:
    """`weights` as they are stored, after the check that they fit `config`; DataError otherwise."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    check_fit(weights, lambda: UNet2DConditionModel.from_config(dict(config)), where)
    return networks.to_bytes(weights)


def components_of(vae: Weights, text: Weights, configuration: Configuration, where: str) -> Components:
    """The components as they are stored, under today's names; DataError where weights do not fit."""
    try:
        from transformers import CLIPTextConfig, CLIPTextModel
    except ImportError:
        raise UsageError(
            "text-to-image models need the package transformers", fix="pip install 'guda[encoders]'"
        ) from None
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae, text = modern_vae_names(vae), plain_text_names(text)
    check_fit(vae, lambda: AutoencoderKL.from_config(configuration.vae), f"{where}: vae")
    encoder = dict(configuration.text)
    check_fit(text, lambda: CLIPTextModel(CLIPTextConfig.from_dict(encoder)), f"{where}: text_encoder")
    return Components(
        vae=networks.to_bytes(vae),
        vae_config=configuration.vae,
        text_encoder=networks.to_bytes(text),
        text_config=configuration.text,
        tokenizer=configuration.tokenizer,
    )


def _read_unet(folder: Path, configuration: Configuration) -> tuple[bytes, tuple[str, ...]]:
    weights, note = _read(folder, "unet")
    return unet_bytes(weights, configuration.unet, f"{folder}: unet"), note


def _read(folder: Path, part: str) -> tuple[Weights, tuple[str, ...]]:
    stem = TRANSFORMERS if part == "text_encoder" else DIFFUSION
    weights, variant = read_weights(folder / part, stem, f"the {part}")
    return weights, (f"the {part} is there as {variant} only, and is stored as float32",) if variant else ()


def _scheduler(folder: Path) -> Config:
    from guda_cli.diffusion.schedule import from_config

    config = supported.settings(read_json(folder / "scheduler" / "scheduler_config.json", "noise schedule"))
    supported.check_scheduler(config, str(folder))
    try:
        from_config(config)
    except (NotImplementedError, TypeError, ValueError) as err:
        raise DataError(f"{folder}: diffusers cannot build this noise schedule", why=str(err)) from None
    return config
