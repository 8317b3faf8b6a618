"""Community checkpoints: a whole Stable Diffusion model in one file, under CompVis's names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from guda_cli.checkpoints import supported
from guda_cli.checkpoints.files import download
from guda_cli.checkpoints.pipeline_folder import (
    TEXTS,
    UNWANTED,
    Pipeline,
    components_of,
    locate,
    read_configuration,
    unet_bytes,
)
from guda_cli.checkpoints.weights import read_file, tensor_names
from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError, MissingError

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer."
OPEN_CLIP = "cond_stage_model.model."
"""Where the parts of a checkpoint begin (Rombach et al. 2022); OPEN_CLIP from Stable Diffusion 2 on."""

_VAE_PARTS = tuple(VAE + part for part in ("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))
_REMEDY = "--base PIPELINE"  # of the same model family; its configuration is enough

# Names that tell other models which come in one file too.
_OTHERS = {
    "conditioner.embedders.": "Stable Diffusion XL",
    UNET + "joint_blocks.": "Stable Diffusion 3",
    UNET + "double_blocks.": "Flux",
    "double_blocks.": "Flux",
}
_OPEN_CLIP_NAMES = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def read_single_file(path: Path, base: str | None) -> Pipeline:
    """The model in the `.safetensors` file `path`; configuration and tokenizer are those of `base`.

    `base` is a pipeline folder (its weights are not read and need not be there) or a hub id; without it, the
    hub's pipeline that diffusers knows for such files. DataError for pickles, other models and weights that
    do not fit the configuration; MissingError when neither `base` nor a hub gives one.
    """
    names = tensor_names(path)
    _check_layout(names, path)
    name = base or _known_base(path)
    folder = locate(name, weights=False) if base else download(name, TEXTS, _REMEDY, UNWANTED)
    configuration = read_configuration(folder)
    tensors = read_file(path, (UNET, *_VAE_PARTS, CLIP, OPEN_CLIP))
    networks.check_finite(tensors, str(path))
    unet = _converted("unet", _part(tensors, UNET), folder)
    vae = _converted("vae", {name: tensors[name] for name in tensors if name.startswith(_VAE_PARTS)}, folder)
    text = _text_encoder(tensors, configuration.text, path)
    components = components_of(vae, text, configuration, str(path))
    return Pipeline(
        unet_bytes(unet, configuration.unet, f"{path}: unet"),
        configuration.unet,
        configuration.scheduler,
        components,
        (*configuration.notes, _note(name, configuration.scheduler)),
    )


def is_single_file(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a whole model in one file, a supported one or not."""
    return any(name.startswith((UNET, *_OTHERS)) for name in names)


def _check_layout(names: list[str], path: Path) -> None:
    for start, model in _OTHERS.items():
        if any(name.startswith(start) for name in names):
            raise DataError(f"{path} is a {model} model", why=supported.SUPPORTED)
    for starts, part in (((UNET,), "unet"), ((VAE,), "vae"), ((CLIP, OPEN_CLIP), "text_encoder")):
        if not any(name.startswith(starts) for name in names):
            raise DataError(
                f"{path} has no {part}",
                why=f"no tensor's name begins with {' or '.join(starts)}",
                fix="take the complete checkpoint (with VAE and text encoder)",
            )


def _known_base(path: Path) -> str:
    """The hub id whose configuration diffusers takes for such a file, told by a few tensors' shapes."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config
    from safetensors.torch import load_file

    try:
        return str(fetch_diffusers_config(load_file(path))["pretrained_model_name_or_path"])
    except (LookupError, TypeError, ValueError) as err:
        raise MissingError(f"{path}: the configuration is not known", why=str(err), fix=_REMEDY) from None


def _note(base: str, scheduler: Mapping[str, Any]) -> str:
    kind = scheduler.get("prediction_type") or "epsilon"
    return f"configuration, noise schedule (prediction_type {kind}) and tokenizer are those of {base}"


def _part(tensors: Mapping[str, Any], prefix: str) -> Weights:
    return {name: value for name, value in tensors.items() if name.startswith(prefix)}


def _converted(part: str, tensors: Weights, folder: Path) -> Weights:
    """One component's weights under diffusers' names, by diffusers' own conversion and `folder`'s config."""
    import torch

    if part == "unet":
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as Model
    else:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as Model
    from diffusers.utils import logging

    told = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of the dtype that is asked for, whatever that is
    try:
        model = Model.from_single_file(
            tensors, config=str(folder), subfolder=part, local_files_only=True, torch_dtype=torch.float32
        )
    except Exception as err:  # noqa: BLE001 - a file that does not fit ends in many kinds of error
        raise DataError(
            f"the {part} does not fit the configuration in {folder}",
            why=(str(err) or type(err).__name__).splitlines()[0],
            fix=_REMEDY,
        ) from None
    finally:
        logging.set_verbosity(told)
    weights: Weights = model.state_dict()
    absent = sum(value.is_meta for value in weights.values())
    if absent or len(weights) != len(tensors):  # the conversion drops what the configuration has no place for
        raise DataError(
            f"the {part} does not fit the configuration in {folder}",
            why=f"that has {len(weights)} tensors, the file {len(tensors)}, and {absent} of them are missing",
            fix=_REMEDY,
        )
    return weights


def _text_encoder(tensors: Weights, config: Mapping[str, Any], path: Path) -> Weights:
    clip = {name.removeprefix(CLIP): value for name, value in _part(tensors, CLIP).items()}
    if clip:
        return clip
    layers = int(config.get("num_hidden_layers", 12))
    part = {name.removeprefix(OPEN_CLIP): value for name, value in _part(tensors, OPEN_CLIP).items()}
    try:
        return open_clip_names(part, layers)
    except (LookupError, ValueError) as err:
        raise DataError(f"{path}: the text encoder is no OpenCLIP text transformer", why=str(err)) from None


def open_clip_names(tensors: Weights, layers: int) -> Weights:
    """An OpenCLIP text transformer's first `layers` layers under the names of `CLIPTextModel`.

    Stable Diffusion 2 reads the last layer but one, so its configuration has a layer less than the file.
    Query, key and value weights lie in one matrix [3 D, D] there. ValueError for unknown names.
    """
    out: Weights = {}
    for name, value in tensors.items():
        match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
        if name in _OPEN_CLIP_NAMES:
            out[_OPEN_CLIP_NAMES[name]] = value
        elif match and int(match[1]) < layers:
            place, kind = f"encoder.layers.{match[1]}", match[3]
            if match[2] == "attn.in_proj":
                for one, third in zip("qkv", value.chunk(3), strict=True):
                    out[f"{place}.self_attn.{one}_proj.{kind}"] = third.contiguous()
            elif match[2] in _OPEN_CLIP_LAYER:
                out[f"{place}.{_OPEN_CLIP_LAYER[match[2]]}.{kind}"] = value
            else:
                raise ValueError(f"unknown tensor '{name}'")
    return out
