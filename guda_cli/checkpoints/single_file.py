"""Community checkpoints: a whole Stable Diffusion model in one file, under CompVis's names of its tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guda_cli.checkpoints.files import download
from guda_cli.checkpoints.one_file_kinds import AVERAGED, CLIP, OPEN_CLIP, UNET, VAE, check_layout
from guda_cli.checkpoints.pipeline_folder import (
    TEXTS,
    UNWANTED,
    Pipeline,
    check_text_encoder,
    check_unet,
    check_vae,
    components_of,
    locate,
    read_configuration,
)
from guda_cli.checkpoints.supported import Config
from guda_cli.checkpoints.weights import check_plain, meta_state, read_file, read_header
from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.weight_file import PackedWeights
from guda_cli.errors import DataError, MissingError

_VAE_PARTS = tuple(VAE + part for part in ("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))
_READ = (UNET, *_VAE_PARTS, CLIP, OPEN_CLIP)
_REMEDY = "--base PIPELINE"  # of the same model family; its configuration is enough
_VAE_ATTENTION = {  # how conversions of 2022 and 2023 called what CompVis calls so
    "q": ("to_q", "query"), "k": ("to_k", "key"), "v": ("to_v", "value"),
    "proj_out": ("to_out.0", "proj_attn"), "norm": ("group_norm",),
}  # fmt: skip
_MARKS = {  # tensors without numbers by which fine-tuned models say what they are
    "v_pred": ("prediction_type", "v_prediction"),
    "ztsnr": ("rescale_betas_zero_snr", True),
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
    do not fit the configuration, by the file's header; MissingError when neither `base` nor a hub gives one.
    """
    header = read_header(path)
    check_layout(header, path)
    check_plain(header, str(path))
    name = base or _known_base(header, path)
    folder = locate(name, weights=False) if base else download(name, TEXTS, _REMEDY, UNWANTED)
    configuration = read_configuration(folder)
    scheduler = configuration.scheduler
    _check_marks(header, scheduler, path, name)
    _check_sizes("unet", _part(header, UNET), configuration.unet, folder)
    _check_sizes("vae", _part(header, *_VAE_PARTS), configuration.vae, folder)
    check_text_encoder(
        _text_encoder(header, configuration.text, path), configuration.text, f"{path}: text_encoder"
    )
    tensors = read_file(path, _READ)
    _check_own_noise(read_file(path, ("alphas_cumprod",)), scheduler, path, name)
    unet = _converted("unet", _part(tensors, UNET), folder)
    vae = _converted("vae", _compvis_attention(_part(tensors, *_VAE_PARTS)), folder)
    check_unet(unet, configuration.unet, f"{path}: unet")
    check_vae(vae, configuration.vae, f"{path}: vae")
    text = _text_encoder(tensors, configuration.text, path)
    return Pipeline(
        PackedWeights(unet, f"{path}: the unet", single=True),
        configuration.unet,
        scheduler,
        components_of(vae, text, configuration, path),
        (*configuration.notes, _note(name, scheduler), *_averaged(header)),
    )


def _check_marks(header: Weights, scheduler: Config, path: Path, base: str) -> None:
    """DataError where the file says that it was trained otherwise than the base's noise schedule has it."""
    for mark, (key, value) in _MARKS.items():
        if mark in header and scheduler.get(key) != value:
            raise DataError(
                f"{path}: its tensor '{mark}' says {key} = {value}, the noise schedule of {base} does not",
                why="with the wrong one every score would be wrong",
                fix=_REMEDY,
            )


def _check_own_noise(found: Weights, scheduler: Config, path: Path, base: str) -> None:
    """DataError where the file's own noise levels, as CompVis's trainer leaves them, are not the base's.

    What cannot be noise levels, as merging tools leave it, says nothing.
    """
    import torch

    from guda_cli.diffusion.schedule import from_config

    own = found.get("alphas_cumprod")
    if own is None or own.ndim != 1 or not own.is_floating_point() or len(own) < 2:
        return
    levels = own.double()
    falls = (levels.diff() <= 0).all() & (levels[0] > levels[-1])
    if not bool(falls & (levels >= 0).all() & (levels < 1).all()):
        return
    wanted = torch.from_numpy(from_config(scheduler).abar[1:].copy())
    near = 5e-3  # they may have been saved in half precision
    if len(levels) != len(wanted) or not torch.allclose(levels, wanted, atol=near):
        raise DataError(
            f"{path}: its noise levels (alphas_cumprod) are not those of the noise schedule of {base}",
            why=f"it has {len(levels)} from {float(levels[0]):.4f} to {float(levels[-1]):.4f}, the schedule "
            f"{len(wanted)} from {float(wanted[0]):.4f} to {float(wanted[-1]):.4f}",
            fix=_REMEDY,
        )


def _averaged(header: Weights) -> tuple[str, ...]:
    if not any(name.startswith(AVERAGED) and name.endswith("weight") for name in header):
        return ()
    return ("of the two UNets in the file the trained one is taken, not its moving average (model_ema)",)


def _check_sizes(part: str, header: Weights, config: Config, folder: Path) -> None:
    """DataError unless a network of `config` has as many tensors, each of as many numbers, as the file."""
    if part == "unet":
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as Model
    else:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as Model
    state = meta_state(config, len(header), lambda: Model.from_config(dict(config)), f"{folder}: {part}")
    wanted, have = (Counter(value.numel() for value in one.values()) for one in (state, header))
    if wanted != have:
        sizes = [sum(one.elements()) for one in (wanted, have)]
        raise DataError(
            f"the {part} does not fit the configuration in {folder}",
            why=f"that has {len(state)} tensors of {sizes[0]:,} numbers, the file {len(header)} "
            f"of {sizes[1]:,}",
            fix=_REMEDY,
        )


def _known_base(header: Weights, path: Path) -> str:
    """The hub id whose configuration diffusers takes for such a file, told by a few tensors' shapes."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    try:
        return str(fetch_diffusers_config(header)["pretrained_model_name_or_path"])
    except (LookupError, TypeError, ValueError) as err:
        raise MissingError(f"{path}: the configuration is not known", why=str(err), fix=_REMEDY) from None


def _note(base: str, scheduler: Mapping[str, Any]) -> str:
    kind = scheduler.get("prediction_type") or "epsilon"
    return f"configuration, noise schedule (prediction_type {kind}) and tokenizer are those of {base}"


def _part(tensors: Weights, *starts: str) -> Weights:
    return {name: value for name, value in tensors.items() if name.startswith(starts)}


def _compvis_attention(vae: Weights) -> Weights:
    """A checkpoint's VAE with CompVis's names of its attention, by which diffusers' conversion finds them."""
    plain = {name: old for old, names in _VAE_ATTENTION.items() for name in names}
    found = re.compile(rf"(.*\.mid\.attn_1)\.({'|'.join(map(re.escape, plain))})\.(weight|bias)")
    named: Weights = {}
    for name, value in vae.items():
        match = found.fullmatch(name)
        named[f"{match[1]}.{plain[match[2]]}.{match[3]}" if match else name] = value
    return named


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
    """Its tensors under the names of `CLIPTextModel`, with those of the rest of CLIP that may be there."""
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
