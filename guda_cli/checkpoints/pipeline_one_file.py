"""A checkpoint in one file, under its first trainer's names, as folders of the components that are in it.

Names are converted by diffusers' own converters; configurations, and what is not in the file, are those of a
pipeline of its kind. Whether all weights are there is told where the folders are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from guda_cli.checkpoints.files import read_config
from guda_cli.checkpoints.one_file_kinds import other_model, part_alone
from guda_cli.checkpoints.pipeline_parts import DIFFUSERS, TRANSFORMERS, Part, quiet_libraries
from guda_cli.checkpoints.weights import check_plain, read_file, read_header, tensor_names
from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError

_NETWORK = "model.diffusion_model."
_VAE = ("first_stage_model.", "vae.")
_CLIP_L = "text_encoders.clip_l.transformer."
_CLIPS = {  # by a text encoder's place among a pipeline's: of Stable Diffusion XL, and of others
    "text_encoder": ("conditioner.embedders.0.transformer.", _CLIP_L),
    "text_encoder_2": ("conditioner.embedders.1.model.", "text_encoders.clip_g.transformer."),
}
_T5 = "text_encoders.t5xxl.transformer."
_OPEN_CLIP = "conditioner.embedders.1.model."
_OURS = ("transformer_blocks.", "down_blocks.", "all_x_embedder.")  # names of diffusers itself
_ENCODERS = ("conditioner.", "cond_stage_model.", "text_encoders.")
_LEFT = (  # of training or of a library, and no weights of a part; and what T5 and CLIPs have beside theirs
    "model_ema.", "first_stage_model.loss.", "conditioner.embedders.1.model.logit_scale", "edm_",
)  # fmt: skip

_TEXT = "text_model."  # of CLIPs' tensors, in files of transformers before 5.6
_FIX = "give the pipeline that the file was made from: --base PIPELINE"

Convert = Callable[[Weights, Mapping[str, Any]], Mapping[str, Tensor]]


def unpack(path: Path, base: Path, made_of: Sequence[Part], folder: Path) -> tuple[str, ...]:
    """Write the components in `path` below `folder`, each as `base` has them; their names, in order.

    `made_of` begins with the network, which has to be there. DataError for files of other models, without
    the network, with text encoders that the pipeline has not, and for weights that are quantised.
    """
    header = read_header(path)
    check_plain(header, str(path))
    starts = {part.name: found for part in made_of if (found := _starts(part, made_of[0], header))}
    network = made_of[0]
    if network.name not in starts:
        raise _no_network(path, network, header)
    _check_all_read(path, header, starts, network)
    for part in made_of:
        if part.name in starts:
            _write(path, base, part, starts[part.name], folder)
    return tuple(starts)


def of_file(err: DataError, path: Path, folder: Path, names: Sequence[str]) -> DataError:
    """An error about a component `unpack` wrote below `folder`, as one about `path`, whence it came."""
    message, mine = err.message, False
    for name in names:
        mine = mine or str(folder / name) in message
        message = message.replace(str(folder / name), str(path))
    if not mine:
        return err
    return DataError(message, why=err.why + _kind(read_header(path)), fix=_FIX)


def _starts(part: Part, network: Part, header: Mapping[str, Tensor]) -> tuple[str, ...]:
    """How names of the part's tensors begin in the file; nothing where it is not in it."""
    if part.is_text:
        return ()
    if part.name == network.name:
        if any(name.startswith(_NETWORK) for name in header):
            return (_NETWORK,)
        own = {name.partition(".")[0] + "." if "." in name else name for name in header}
        return tuple(sorted(start for start in own if not start.startswith((*_VAE, *_ENCODERS, *_LEFT))))
    if part.name == "vae":
        known: tuple[str, ...] = _VAE
    elif any(name.startswith("T5") for name in part.classes):
        known = (_T5,)
    else:
        known = _CLIPS.get(part.name, ())
    return tuple(start for start in known if any(name.startswith(start) for name in header))


def _no_network(path: Path, network: Part, header: Mapping[str, Tensor]) -> DataError:
    return DataError(
        f"{path} has no {network.name}",
        why=f"none of its {len(header)} tensors is one of a {network.classes[0]}",
        fix="take the complete checkpoint, or the file of the network itself",
    )


def _check_all_read(
    path: Path, header: Mapping[str, Tensor], starts: Mapping[str, tuple[str, ...]], network: Part
) -> None:
    """DataError where text encoders are in the file that the pipeline has none of."""
    read = tuple(start for own in starts.values() for start in own)
    lost = sorted(
        name for name in header if name.startswith(_ENCODERS) and not name.startswith((*read, *_LEFT))
    )
    heads = tuple(start.rsplit(".", 2)[0] + "." for start in read if start.startswith(_ENCODERS))
    lost = [name for name in lost if not heads or not name.startswith(heads)]
    if lost:
        raise DataError(
            f"{path} has a text encoder that is none of this kind of pipeline",
            why=f"the pipeline has a {network.classes[0]}, the file the tensor '{lost[0]}'" + _kind(header),
            fix=_FIX,
        )


def _kind(header: Mapping[str, Tensor]) -> str:
    found = other_model(header) or part_alone(header)
    return f"; by the names of its tensors the file is of {found}" if found else ""


def _write(path: Path, base: Path, part: Part, starts: tuple[str, ...], folder: Path) -> None:
    from safetensors.torch import save_file

    config = read_config(base / part.name / "config.json")
    weights = read_file(path, starts)
    networks.check_finite(weights, f"{path}: the {part.name}")
    try:
        with quiet_libraries():
            found = _converter(part, starts)(weights, config)
    except DataError:
        raise
    except Exception as err:  # noqa: BLE001 - of other names its converters end in many kinds of error
        why = " ".join(str(err).split())[:300] or type(err).__name__
        raise DataError(
            f"the {part.name} in {path} is none of the pipeline in {base}",
            why=f"{type(err).__name__}: {why}{_kind(read_header(path))}",
            fix=_FIX,
        ) from None
    if part.library == TRANSFORMERS:
        found = _named_as(found, base / part.name)
    own = folder / part.name
    own.mkdir(parents=True)
    stem = "diffusion_pytorch_model" if part.library == DIFFUSERS else "model"
    plain = {name: value.contiguous().clone() for name, value in found.items()}
    save_file(plain, own / f"{stem}.safetensors", {"format": "pt"})
    (own / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _converter(part: Part, starts: tuple[str, ...]) -> Convert:
    if part.library == TRANSFORMERS:
        return _open_clip if _OPEN_CLIP in starts else lambda weights, _: _encoder(weights, starts[0], part)
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    known = SINGLE_FILE_LOADABLE_CLASSES.get(part.classes[0])
    if known is None:
        raise DataError(
            f"diffusers reads no {part.classes[0]} from one file",
            fix="give the folder of the pipeline, or that of its network with --base PIPELINE",
        )
    convert = known["checkpoint_mapping_fn"]
    if part.name == "vae":
        return lambda weights, config: convert(weights, config=dict(config))

    def network(weights: Weights, config: Mapping[str, Any]) -> Mapping[str, Tensor]:
        bare = {name.removeprefix(_NETWORK): value for name, value in weights.items()}
        if any(name.startswith(_OURS) for name in bare):
            return bare
        named = {_NETWORK + name: value for name, value in bare.items()} if part.name == "unet" else bare
        found: Mapping[str, Tensor] = convert(checkpoint=named, config=dict(config))
        return found

    return network


def _encoder(weights: Weights, start: str, part: Part) -> Weights:
    """A text encoder under transformers' names; in Stable Diffusion 3 the first one's projection is none."""
    found = {name.removeprefix(start): value for name, value in weights.items()}
    found.pop("logit_scale", None)
    if start == _CLIP_L:
        found.pop("text_projection.weight", None)
    if start == _CLIP_L and "CLIPTextModelWithProjection" in part.classes:
        width = found["text_model.final_layer_norm.weight"].numel()
        found["text_projection.weight"] = torch.eye(width)
    return found


def _named_as(weights: Mapping[str, Tensor], base: Path) -> Mapping[str, Tensor]:
    """A text encoder's weights under the names that the base's have, so that equal ones are equal bytes."""
    files = sorted(base.glob("*.safetensors"))
    if not files:
        return weights
    theirs = tensor_names(files[0])
    prefix = "" if any(name.startswith(_TEXT) for name in theirs) else _TEXT
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if not name.endswith(".position_ids") or name.removeprefix(prefix) in theirs
    }


def _open_clip(weights: Weights, config: Mapping[str, Any]) -> Mapping[str, Tensor]:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    like = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    found: Mapping[str, Tensor] = convert_open_clip_checkpoint(like, weights, prefix=_OPEN_CLIP)
    return found
