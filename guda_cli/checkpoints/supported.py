"""What a pipeline's configurations must say for this program to work with it. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from guda_cli.errors import DataError
from guda_cli.sections import PREDICTION_TYPES

Config = dict[str, Any]

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
SUPPORTED = (
    "supported is Stable Diffusion 1.x and 2.x: a StableDiffusionPipeline of UNet2DConditionModel, "
    "AutoencoderKL, CLIPTextModel and CLIPTokenizer"
)
SCALING_FACTOR = 0.18215
"""Of Stable Diffusion's VAE (Rombach et al. 2022); diffusers' default where a configuration has none."""

_UNUSED = ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim")


def settings(config: Mapping[str, Any]) -> Config:
    """`config` without what says where or by which version it was saved; the class's name stays."""
    return {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}


def check_index(index: Mapping[str, Any], where: str) -> None:
    """DataError unless `model_index.json` is of a supported pipeline with all components."""
    name = index.get("_class_name", "unknown pipeline")
    if name not in PIPELINES:
        raise DataError(f"{where} is a {name}", why=SUPPORTED)
    for part, classes in CLASSES.items():
        entry = index.get(part)
        if not entry or not isinstance(entry, list) or not entry[-1]:
            raise DataError(f"{where}: the pipeline has no {part}", why=SUPPORTED)
        if entry[-1] not in classes:
            raise DataError(f"{where}: the {part} is a {entry[-1]}", why=SUPPORTED)


def checked_unet(config: Mapping[str, Any], where: str) -> Config:
    """`config` with its class; DataError unless the network reads a latent, a time, a text and no more."""
    _class_is(config, "unet", where)
    for key in _UNUSED:
        if config.get(key) is not None:
            raise DataError(f"{where}: the unet has {key} = {config[key]!r}", why=SUPPORTED)
    channels = config.get("in_channels", 4), config.get("out_channels", 4)
    if channels[0] != channels[1]:
        raise DataError(
            f"{where}: the unet has {channels[0]} input and {channels[1]} output channels",
            why="it reads more than a noisy latent: an inpainting, depth or editing model",
            fix="take the text-to-image model",
        )
    return {**config, "_class_name": CLASSES["unet"][0]}


def checked_vae(config: Mapping[str, Any], where: str) -> tuple[Config, tuple[str, ...]]:
    """`config` with its scaling factor, and a note when that was put in; DataError for other VAEs."""
    _class_is(config, "vae", where)
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if config.get(key) is not None:
            raise DataError(f"{where}: the vae has {key} = {config[key]!r}", why=SUPPORTED)
    factor = config.get("scaling_factor")
    if factor is None:
        note = f"the VAE's configuration has no scaling_factor: {SCALING_FACTOR} is used"
        return {**config, "scaling_factor": SCALING_FACTOR}, (note,)
    if not isinstance(factor, (int, float)) or not math.isfinite(factor) or factor <= 0:
        raise DataError(f"{where}: the vae's scaling_factor is {factor!r}", why="a positive number is needed")
    return dict(config), ()


def checked_text(config: Mapping[str, Any], where: str) -> Config:
    """`config` of a `CLIPTextModel`, its dtype that of the stored weights; DataError for other encoders."""
    (wanted,) = CLASSES["text_encoder"]
    for found, expected in (
        (next(iter(config.get("architectures") or ()), wanted), wanted),
        (config.get("model_type", "clip_text_model"), "clip_text_model"),
    ):
        if found != expected:
            raise DataError(f"{where}: the text_encoder is a {found}", why=SUPPORTED)
    # transformers loads weights in the dtype that is written here, whatever dtype they are stored in
    return {key: "float32" if key in ("dtype", "torch_dtype") else value for key, value in config.items()}


def check_scheduler(config: Mapping[str, Any], where: str) -> None:
    """DataError unless `config` says betas and a prediction type."""
    name = config.get("_class_name", "scheduler")
    if config.get("beta_schedule") is None and config.get("trained_betas") is None:
        raise DataError(
            f"{where}: the {name} has no betas",
            why="beta_schedule or trained_betas is needed: flow-matching models are not supported",
        )
    kind = config.get("prediction_type") or "epsilon"
    if kind not in PREDICTION_TYPES:
        raise DataError(f"{where}: prediction_type '{kind}'", why="one of " + ", ".join(PREDICTION_TYPES))


def check_together(
    unet: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any], where: str
) -> None:
    """DataError unless the network reads this VAE's latents and this text encoder's embeddings."""
    channels, latent = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latent:
        raise DataError(
            f"{where}: the unet reads {channels} channels, the vae's latents have {latent}",
            why="inpainting, depth and editing models read more than a noisy latent"
            if channels > latent
            else "they are of different models",
            fix="take the text-to-image model and its own VAE",
        )
    width, hidden = unet.get("cross_attention_dim", 1280), text.get("hidden_size", 512)
    if any(one != hidden for one in (width if isinstance(width, list) else [width])):
        raise DataError(
            f"{where}: the unet reads text embeddings of size {width}, the text encoder's have {hidden}",
            why="they are of different models (Stable Diffusion 1.x: 768, 2.x: 1024)",
            fix="take the unet and the text encoder of one model",
        )


def _class_is(config: Mapping[str, Any], part: str, where: str) -> None:
    name = config.get("_class_name")
    if name is not None and name not in CLASSES[part]:
        raise DataError(f"{where}: the {part} is a {name}", why=SUPPORTED)
