"""What a pipeline's configurations must say for this program to work with it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guda_cli.checkpoints.config_fields import check_fields, is_number
from guda_cli.checkpoints.scheduler_file import check_scheduler_class
from guda_cli.errors import DataError

Config = dict[str, Any]

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
PIXEL_PIPELINES = ("DDPMPipeline", "DDIMPipeline")
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

_LIBRARIES = ("diffusers", "transformers")
_UNUSED = {  # entries with which a network reads more than a latent, a timestep and a text, and what that is
    "time_cond_proj_dim": "the guidance scale, as latent consistency models (LCM) and others distilled do",
    "class_embed_type": "a class, another image or a level of noise",
    "num_class_embeds": "a class, or the level of noise of a small image (upscalers)",
    "class_embeddings_concat": "a class beside the timestep",
    "addition_embed_type": "sizes, an image or a pooled text (Stable Diffusion XL)",
    "encoder_hid_dim": "another encoder's states",
    "encoder_hid_dim_type": "another encoder's states",
    "dual_cross_attention": "an image beside the text",
}
_OTHERWISE = {  # entries that have one value in Stable Diffusion, and what another one means
    "time_embedding_type": ("positional", "it reads a continuous level of noise, no timestep"),
    "attention_type": ("default", "it reads boxes beside the text (GLIGEN)"),
}
_CHANNELS = {  # what networks read that have this many channels in, and four out
    5: "a depth map beside the latent (depth to image)",
    7: "a small image beside the latent (an upscaler)",
    8: "an image beside the latent (InstructPix2Pix and other editing models, or Marigold)",
    9: "a masked image and its mask beside the latent (inpainting)",
}
TEXT_TO_IMAGE = "take the text-to-image model that it was made from"


def settings(config: Mapping[str, Any], where: str = "") -> Config:
    """`config` without what says where or by which version it was saved; the class's name stays.

    DataError for entries of another kind than they are elsewhere, and for weights that are quantised.
    """
    check_fields(config, where)
    if config.get("quantization_config"):
        raise DataError(
            f"{where}: the weights are quantised (quantization_config)",
            why="they are codes of numbers that a library of its own takes apart",
            fix="give the model as it was before",
        )
    return {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}


def check_index(index: Mapping[str, Any], where: str) -> None:
    """DataError unless `model_index.json` is of a supported pipeline with all components."""
    _check_pipeline(index, where, PIPELINES, SUPPORTED)
    for part, classes in CLASSES.items():
        entry = index.get(part)
        if not entry or not isinstance(entry, list) or not entry[-1]:
            raise DataError(f"{where}: the pipeline has no {part}", why=SUPPORTED)
        _check_library(part, entry, where)
        if entry[-1] not in classes:
            raise DataError(f"{where}: the {part} is a {entry[-1]}", why=SUPPORTED)
    _check_scheduler(index, where)


def check_pixel_index(index: Mapping[str, Any], where: str) -> None:
    """DataError unless `model_index.json` is of a pipeline whose network reads images and nothing else."""
    latent = "it works on latents, not on pixels; " if {"vae", "vqvae", "movq"} & index.keys() else ""
    why = latent + "supported without prompts are " + " and ".join(PIXEL_PIPELINES)
    _check_pipeline(index, where, PIXEL_PIPELINES, why)
    entry = index.get("unet")
    if isinstance(entry, list) and entry:
        _check_library("unet", entry, where)
        if entry[-1] != "UNet2DModel":
            raise DataError(f"{where}: the unet is a {entry[-1]}", why="a UNet2DModel is needed")
    _check_scheduler(index, where)


def _check_pipeline(index: Mapping[str, Any], where: str, classes: tuple[str, ...], why: str) -> None:
    name = index.get("_class_name", "unknown pipeline")
    if isinstance(name, list):  # a module beside the index, and a class in it
        raise DataError(
            f"{where} is a pipeline with code of its own ({name!r:.80})",
            why="code that comes with a model is never run, and without it this is another model",
        )
    if name not in classes:
        text = ""
        if name in PIPELINES:
            text = "take a recipe with model.text_conditional: true, such as paintings"
        elif name in PIXEL_PIPELINES:
            text = "take a recipe without model.text_conditional: this model reads no prompts"
        raise DataError(f"{where} is a {name}", why=why, fix=text)


def _check_library(part: str, entry: list[Any], where: str) -> None:
    if len(entry) > 1 and entry[0] not in _LIBRARIES:
        raise DataError(
            f"{where}: the {part} is a class of its own module ({entry[0]!r:.60})",
            why="code that comes with a model is never run, and without it this is another model",
        )


def _check_scheduler(index: Mapping[str, Any], where: str) -> None:
    """What the index calls the scheduler is what diffusers takes its configuration for."""
    entry = index.get("scheduler")
    if isinstance(entry, list) and entry and entry[-1]:
        check_scheduler_class(entry[-1], where)


def checked_unet(config: Mapping[str, Any], where: str) -> Config:
    """`config` with its class; DataError unless the network reads a latent, a time, a text and no more."""
    _class_is(config, "unet", where)
    for key, reads in _UNUSED.items():
        if config.get(key):
            raise DataError(
                f"{where}: the unet has {key} = {config[key]!r:.60}",
                why=f"it also reads {reads}; {SUPPORTED}",
                fix=TEXT_TO_IMAGE,
            )
    for key, (usual, reads) in _OTHERWISE.items():
        if config.get(key, usual) not in (usual, None):
            raise DataError(f"{where}: the unet has {key} = {config[key]!r:.60}", why=f"{reads}; {SUPPORTED}")
    check_blocks(config, "unet", where)
    side(config, where)
    channels = config.get("in_channels") or 4, config.get("out_channels") or 4
    if channels[0] != channels[1]:
        raise more_channels(channels[0], channels[1], where)
    return {**config, "_class_name": CLASSES["unet"][0]}


def check_blocks(config: Mapping[str, Any], part: str, where: str) -> None:
    """DataError where the configuration does not say how wide the blocks are."""
    if not config.get("block_out_channels"):
        raise DataError(
            f"{where}: the {part} has no block_out_channels",
            why="its config.json does not say how wide it is",
            fix="give a folder written by save_pretrained",
        )


def side(config: Mapping[str, Any], where: str) -> int | None:
    """The side of what a network was trained on, None if it is not said; DataError where it is no square."""
    size = config.get("sample_size")
    if not isinstance(size, list):
        return size
    if len(size) > 2 or not all(isinstance(one, int) and one == size[0] for one in size):
        raise DataError(
            f"{where}: the network was trained on {' x '.join(map(str, size))}, which is no square",
            why="images are square here",
        )
    return int(size[0])


def more_channels(inputs: int, outputs: int, where: str) -> DataError:
    """The error to raise of a network that reads `inputs` channels for `outputs`."""
    usual = "it reads more than a noisy latent: an inpainting, depth or editing model"
    reads = f"it reads {_CHANNELS[inputs]}" if outputs == 4 and inputs in _CHANNELS else usual
    return DataError(
        f"{where}: the unet has {inputs} input and {outputs} output channels", why=reads, fix=TEXT_TO_IMAGE
    )


def checked_vae(config: Mapping[str, Any], where: str) -> tuple[Config, tuple[str, ...]]:
    """`config` with its scaling factor, and a note when that was put in; DataError for other VAEs."""
    _class_is(config, "vae", where)
    check_blocks(config, "vae", where)
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if config.get(key) is not None:
            raise DataError(f"{where}: the vae has {key} = {config[key]!r}", why=SUPPORTED)
    factor = config.get("scaling_factor")
    if factor is None:
        note = f"the VAE's configuration has no scaling_factor: {SCALING_FACTOR} is used"
        return {**config, "scaling_factor": SCALING_FACTOR}, (note,)
    if not is_number(factor) or factor <= 0:
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


def check_together(
    unet: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any], where: str
) -> None:
    """DataError unless the network reads this VAE's latents and this text encoder's embeddings."""
    channels, latent = unet.get("in_channels") or 4, vae.get("latent_channels") or 4
    if channels != latent:
        raise DataError(
            f"{where}: the unet reads {channels} channels, the vae's latents have {latent}",
            why="inpainting, depth and editing models read more than a noisy latent"
            if channels > latent
            else "they are of different models",
            fix="take the text-to-image model and its own VAE",
        )
    width, hidden = unet.get("cross_attention_dim") or 1280, text.get("hidden_size") or 512
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
