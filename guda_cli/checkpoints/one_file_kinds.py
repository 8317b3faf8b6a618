"""What a `.safetensors` file holds, told by names and shapes of its tensors before a number of it is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from guda_cli.checkpoints import supported
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer."
OPEN_CLIP = "cond_stage_model.model."
"""Where the parts of a checkpoint begin (Rombach et al. 2022); OPEN_CLIP from Stable Diffusion 2 on."""
AVERAGED = "model_ema."
"""And the moving average of the UNet's weights, whose names have lost their dots."""

# Names that tell other models which come in one file too, with or without UNET before them. The first counts.
_OTHERS = {
    "edm_mean": "Playground 2.5",
    "conditioner.embedders.0.model.": "Stable Diffusion XL refiner",
    "conditioner.embedders.": "Stable Diffusion XL",
    "joint_blocks.": "Stable Diffusion 3",
    "distilled_guidance_layer.": "Chroma",
    "single_stream_modulation.": "Flux 2",
    "double_stream_modulation_img.": "Flux 2",
    "txt_in.individual_token_refiner.": "HunyuanVideo",
    "double_blocks.": "Flux",
    "single_blocks.": "Flux",
    "double_layers.": "AuraFlow",
    "cap_embedder.": "Lumina 2 or Z-Image",
    "patchify_proj.": "LTX-Video",
    "head.modulation": "Wan",
    "clip_txt_mapper.": "Stable Cascade",
    "text_encoders.": "Stable Diffusion 3",
}
# And those of a part alone, or of something that goes with a model.
_ALONE = {
    AVERAGED: "only the moving average of a UNet (model_ema), under names that do not say where they belong",
    "diffusion_model.": "a UNet alone, without VAE and text encoder",
    "input_blocks.": "a UNet alone, without VAE and text encoder",
    "control_model.": "a ControlNet",
    "controlnet_cond_embedding.": "a ControlNet",
    "input_hint_block.": "a ControlNet",
    "down_blocks.0.motion_modules.": "a motion module (AnimateDiff)",
    "down_blocks.": "a UNet of diffusers without the folder that its config.json is in",
    VAE: "a VAE alone",
    "encoder.down": "a VAE alone",
    "decoder.": "a VAE alone",
    "cond_stage_model.": "a text encoder alone",
    "text_model.": "a text encoder alone",
}
_COMPLETE = "take the complete checkpoint (with VAE and text encoder)"


def is_single_file(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a whole model in one file, a supported one or not."""
    names = list(names)
    return other_model(names) is not None or any(name.startswith(UNET) for name in names)


def other_model(names: Iterable[str]) -> str | None:
    """Which model tensors of these names are of; None where it may be Stable Diffusion 1.x or 2.x."""
    starts = [name.removeprefix(UNET) for name in names]
    return next((model for start, model in _OTHERS.items() if any(n.startswith(start) for n in starts)), None)


def part_alone(names: Iterable[str]) -> str | None:
    """Which part of a model tensors of these names are, or what that goes with one; None where unknown."""
    known = list(names)
    return next((what for start, what in _ALONE.items() if any(n.startswith(start) for n in known)), None)


def check_layout(header: Weights, path: Path) -> None:
    """DataError unless `header` is of a whole Stable Diffusion 1.x or 2.x that reads a text and no more."""
    model = other_model(header)
    if model is not None:
        raise DataError(f"{path} is a {model} model", why=supported.SUPPORTED)
    for starts, part in (((UNET,), "unet"), ((VAE,), "vae"), ((CLIP, OPEN_CLIP), "text_encoder")):
        if not any(name.startswith(starts) for name in header):
            raise DataError(
                f"{path} has no {part}",
                why=f"no tensor's name begins with {' or '.join(starts)}",
                fix=_COMPLETE,
            )
    first, last = header.get(f"{UNET}input_blocks.0.0.weight"), header.get(f"{UNET}out.2.weight")
    if (
        first is not None
        and last is not None
        and first.ndim == last.ndim == 4
        and first.shape[1] != len(last)
    ):
        raise supported.more_channels(first.shape[1], len(last), str(path))
    for mark, reads in (
        ("label_emb.", "a class, another image or a level of noise (unCLIP, upscalers)"),
        ("cond_proj.", "the guidance scale, as latent consistency models (LCM) do: time_cond_proj_dim"),
    ):
        found = [name for name in header if name.startswith(UNET) and mark in name]
        if found:
            raise DataError(
                f"{path}: the unet also reads {reads}",
                why=f"it has the tensor '{found[0]}'; {supported.SUPPORTED}",
                fix=supported.TEXT_TO_IMAGE,
            )
