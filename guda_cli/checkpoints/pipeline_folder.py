"""A Stable Diffusion model in the layout of a `StableDiffusionPipeline` folder, read into plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guda_cli.checkpoints import supported
from guda_cli.checkpoints.components import Components
from guda_cli.checkpoints.files import download, is_hub_id, model_folder, read_config
from guda_cli.checkpoints.scheduler_file import checked_scheduler
from guda_cli.checkpoints.supported import CLASSES, Config
from guda_cli.checkpoints.tokenizer_files import read_tokenizer
from guda_cli.checkpoints.weights import (
    DIFFUSION,
    TRANSFORMERS,
    check_fit,
    modern_attention_names,
    read_weights,
    text_encoder_names,
)
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.weight_file import PackedWeights
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

    unet: PackedWeights
    """Weights of a `UNet2DConditionModel` under its names."""
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


def read_unet_folder(folder: Path) -> tuple[PackedWeights, Config]:
    """Weights and configuration of a bare `UNet2DConditionModel` folder; DataError as for a pipeline's."""
    config = read_unet_config(folder)
    weights, _ = read_weights(
        folder, DIFFUSION, "the unet", lambda header: check_unet(header, config, str(folder))
    )
    return _stored(weights, folder, "the unet"), config


def read_unet_config(folder: Path) -> Config:
    """The configuration of a bare `UNet2DConditionModel` folder; DataError unless it can be used."""
    config = _settings(folder / "config.json", "configuration (config.json)")
    return supported.checked_unet(config, str(folder))


def locate(source: str, *, weights: bool = True) -> Path:
    """The folder `source`, or that of the hub id `source`, downloaded without pickles.

    DataError when it is neither; MissingError when the hub does not give it.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return model_folder(folder)
    if folder.exists() or not is_hub_id(source):
        raise DataError(f"no such folder: {source}", fix="give a folder or OWNER/MODEL (a hub id)")
    return download(source, WANTED if weights else TEXTS, "download it and give the folder", UNWANTED)


def read_configuration(folder: Path) -> Configuration:
    """Everything in a pipeline folder but its weights; DataError unless it is a supported pipeline."""
    hint = "give a StableDiffusionPipeline folder"
    if (folder / "unet").is_dir():
        hint += f"; a unet alone is taken as {folder / 'unet'} over --base PIPELINE"
    index = read_config(folder / "model_index.json", "pipeline index (model_index.json)", hint)
    supported.check_index(index, str(folder))
    for part in (*CLASSES, "scheduler"):
        if not (folder / part).is_dir():
            raise DataError(f"the pipeline in {folder} has no {part}/", why=supported.SUPPORTED, fix=hint)
    unet, vae, text = (
        _settings(folder / part / "config.json", f"{part} configuration (config.json)")
        for part in ("unet", "vae", "text_encoder")
    )
    unet = supported.checked_unet(unet, str(folder))
    vae, notes = supported.checked_vae(vae, str(folder))
    text = supported.checked_text(text, str(folder))
    supported.check_together(unet, vae, text, str(folder))
    tokenizer, more = read_tokenizer(folder / "tokenizer", text)
    scheduler, said = checked_scheduler(
        _settings(folder / "scheduler" / "scheduler_config.json", "noise schedule"), str(folder)
    )
    return Configuration(unet, vae, text, scheduler, tokenizer, (*notes, *more, *said))


def read_components(folder: Path, configuration: Configuration) -> tuple[Components, tuple[str, ...]]:
    """VAE, text encoder and tokenizer of a pipeline folder, and notes on their files."""
    vae, first = _read(folder, "vae", check_vae, configuration.vae)
    text, second = _read(folder, "text_encoder", check_text_encoder, configuration.text)
    return components_of(vae, text, configuration, folder), (*first, *second)


def check_unet(weights: Weights, config: Mapping[str, Any], where: str) -> None:
    """DataError unless `weights` are those of a `UNet2DConditionModel` of `config`."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    check_fit(weights, config, lambda: UNet2DConditionModel.from_config(dict(config)), where)


def check_vae(weights: Weights, config: Mapping[str, Any], where: str) -> None:
    """DataError unless `weights` are those of an `AutoencoderKL` of `config`, under old names or new ones."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    check_fit(modern_attention_names(weights), config, lambda: AutoencoderKL.from_config(dict(config)), where)


def check_text_encoder(weights: Weights, config: Mapping[str, Any], where: str) -> None:
    """DataError unless `weights` are of a `CLIPTextModel` of `config`; UsageError without transformers."""
    try:
        from transformers import CLIPTextConfig, CLIPTextModel
    except ImportError:
        raise UsageError(
            "text-to-image models need the package transformers", fix="pip install 'guda[encoders]'"
        ) from None
    encoder = dict(config)
    check_fit(
        text_encoder_names(weights), config, lambda: CLIPTextModel(CLIPTextConfig.from_dict(encoder)), where
    )


def components_of(vae: Weights, text: Weights, configuration: Configuration, where: Path) -> Components:
    """The components as they are stored, under today's names; their weights have been checked to fit.

    `where` is the folder or file they are of, for messages.
    """
    return Components(
        vae=_stored(modern_attention_names(vae), where, "the vae"),
        vae_config=configuration.vae,
        text_encoder=_stored(text_encoder_names(text), where, "the text_encoder"),
        text_config=configuration.text,
        tokenizer=configuration.tokenizer,
    )


def _read_unet(folder: Path, configuration: Configuration) -> tuple[PackedWeights, tuple[str, ...]]:
    weights, note = _read(folder, "unet", check_unet, configuration.unet)
    return _stored(weights, folder, "the unet"), note


def _stored(weights: Weights, where: Path, what: str) -> PackedWeights:
    """As they are stored: in float32, and finite."""
    return PackedWeights(weights, f"{where}: {what}", single=True)


def _read(
    folder: Path, part: str, check: Callable[[Weights, Config, str], None], config: Config
) -> tuple[Weights, tuple[str, ...]]:
    stem = TRANSFORMERS if part == "text_encoder" else DIFFUSION
    weights, variant = read_weights(
        folder / part, stem, f"the {part}", lambda header: check(header, config, f"{folder}: {part}")
    )
    return weights, (variant_note(part, variant),) if variant else ()


def variant_note(what: str, variant: str) -> str:
    """What is said of weights that are there in a variant only."""
    return f"the {what} is there as {variant} only, and is stored as float32"


def _settings(path: Path, what: str) -> Config:
    return supported.settings(read_config(path, what), str(path))
