"""LoRA files of diffusers, peft and kohya's trainer (Hu et al. 2022), merged into a pipeline's weights.

A file holds for a module W [o, i, ...] the factors A [r, i, ...] ("down") and B [o, r, ...] ("up"); the
module becomes W + (alpha / r) B A. Without alpha the scale is 1.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from guda_cli.checkpoints.files import read_json
from guda_cli.checkpoints.pipeline_folder import Pipeline
from guda_cli.checkpoints.weights import plain_text_names, read_file, tensor_names
from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError

_DOWN = (".lora_A.weight", ".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight")
_UP = (".lora_B.weight", ".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight")
_DOWN_KOHYA, _UP_KOHYA = ".lora_down.weight", ".lora_up.weight"
_ALPHA = ".alpha"
_OTHERS = {  # what the ending of a name tells
    r"\.(dora_scale|lora_magnitude_vector(\.weight)?)": "DoRA",
    r"\.lora_mid\.weight": "LoCon with a Tucker core",
    r"\.hada_\w+": "LoHa",
    r"\.lokr_\w+": "LoKr",
    r"\.oft_\w+": "OFT",
    r"\.diff(_b)?": "full differences",
}
_METADATA = "lora_adapter_metadata"  # where diffusers keeps the scales of an adapter, as JSON
_PARTS = ("unet", "text_encoder")
_PEFT = "base_model.model."
_KOHYA = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder"}


@dataclass
class _Update:
    """The factors of one module, as they are found in the file."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


def is_lora(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a low-rank update or one of its relatives."""
    return any(name.endswith((*_DOWN, _DOWN_KOHYA)) or name.startswith(tuple(_KOHYA)) for name in names)


def apply_lora(pipeline: Pipeline, path: Path, bare: str = "unet") -> Pipeline:
    """`pipeline` with the LoRA in the `.safetensors` file `path` added to its unet and text encoder.

    Names that do not say their part are of the part `bare`.

    Linear layers and convolutions, the names of peft, diffusers (old and new) and kohya. DataError for other
    kinds of update and for tensors that belong to no module of this pipeline.
    """
    names = tensor_names(path)
    for mark, kind in _OTHERS.items():
        if any(re.search(f"{mark}$", name) for name in names):
            raise DataError(
                f"{path} is not a plain LoRA but {kind}",
                why="only W + (alpha / r) B A is supported",
                fix="merge it into its model with the tool that made it, and give that model",
            )
    stored = read_file(path)
    networks.check_finite(stored, str(path))
    parts = {
        "unet": networks.from_bytes(pipeline.unet),
        "text_encoder": plain_text_names(networks.from_bytes(pipeline.components.text_encoder)),
    }
    updates = _collected(stored, {part: _modules(weights) for part, weights in parts.items()}, path, bare)
    scales = _Scales(path)
    touched = set()
    for (part, module), update in updates.items():
        _add(parts[part], part, module, update, scales, path)
        touched.add(part)
    return _with(pipeline, parts, touched)


def _with(pipeline: Pipeline, parts: Mapping[str, Weights], touched: set[str]) -> Pipeline:
    if "text_encoder" in touched:
        text = networks.to_bytes(parts["text_encoder"])
        components = dataclasses.replace(pipeline.components, text_encoder=text)
        pipeline = dataclasses.replace(pipeline, components=components)
    if "unet" in touched:
        pipeline = dataclasses.replace(pipeline, unet=networks.to_bytes(parts["unet"]))
    return pipeline


def _modules(weights: Weights) -> set[str]:
    """Modules that a low-rank update can belong to: those with a weight of two or more dimensions."""
    return {
        name.removesuffix(".weight")
        for name, value in weights.items()
        if name.endswith(".weight") and value.ndim > 1
    }


def _collected(
    stored: Weights, modules: Mapping[str, set[str]], path: Path, bare: str
) -> dict[tuple[str, str], _Update]:
    """The factors by part and module; DataError when tensors fit nowhere, some of them named."""
    kohya = {  # kohya's names have an underscore for every dot, so they are looked up, not taken apart
        prefix + (f"text_model_{name}" if part == "text_encoder" else name).replace(".", "_"): (part, name)
        for prefix, part in _KOHYA.items()
        for name in modules[part]
    }
    updates: dict[tuple[str, str], _Update] = {}
    strangers = []
    for name, value in stored.items():
        stem, kind = _stem(name)
        place = kohya.get(stem) or _dotted(stem, modules, bare)
        if kind is None or place is None or (kind == "alpha" and value.numel() != 1):
            strangers.append(name)
            continue
        update = updates.setdefault(place, _Update())
        if getattr(update, kind) is not None:
            raise DataError(f"{path} has two updates of {place[0]}.{place[1]}", why=f"'{name}' is the second")
        setattr(update, kind, float(value) if kind == "alpha" else value)
    if strangers or not updates:
        shown = ", ".join(strangers[:3]) + (f" and {len(strangers) - 3} more" if len(strangers) > 3 else "")
        raise DataError(
            f"{path}: the LoRA does not belong to this model",
            why=f"no module of it for {shown}" if strangers else "it has no factors",
            fix="--base PIPELINE",
        )
    return updates


def _stem(name: str) -> tuple[str, str | None]:
    """A tensor's name without its ending, and the field of `_Update` that it is."""
    for ends, kind in (((*_DOWN, _DOWN_KOHYA), "down"), ((*_UP, _UP_KOHYA), "up"), ((_ALPHA,), "alpha")):
        for end in ends:
            if name.endswith(end):
                stem = name.removesuffix(end)
                return (stem.removesuffix("_lora").removesuffix(".lora") if kind == "alpha" else stem), kind
    return name, None


def _dotted(stem: str, modules: Mapping[str, set[str]], bare: str) -> tuple[str, str] | None:
    """The module of a name with dots: `unet.<module>`, `text_encoder.<module>`, or a module of `bare`."""
    part, name = bare, stem.removeprefix(_PEFT)
    for known in _PARTS:
        if name.startswith(f"{known}."):
            part, name = known, name.removeprefix(f"{known}.")
    if part == "text_encoder":
        name = name.removeprefix("text_model.")
        name = re.sub(r"self_attn\.to_([qkv])$", r"self_attn.\1_proj", name)
        name = re.sub(r"self_attn\.to_out$", "self_attn.out_proj", name)
    else:
        name = re.sub(r"\.processor\.(to_[qkv]|to_out)$", r".\1", name)
        name = re.sub(r"\.to_out$", ".to_out.0", name)
    return (part, name) if name in modules[part] else None


class _Scales:
    """alpha of modules without one in the tensors: by the file's metadata or peft's adapter_config.json."""

    def __init__(self, path: Path) -> None:
        self._of = {part: _lora_config(path, part) for part in ("unet", "text_encoder")}

    def scale(self, part: str, module: str, rank: int) -> float:
        """alpha / r of that module, alpha / sqrt(r) where the adapter says so (rank-stabilised LoRA)."""
        config = self._of[part]
        alpha = config.get("lora_alpha", rank)
        for name, special in (config.get("alpha_pattern") or {}).items():
            if f".text_model.{module}".endswith(f".{name}"):  # peft's patterns, as diffusers writes them
                alpha = special
                break
        return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _lora_config(path: Path, part: str) -> Mapping[str, Any]:
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_METADATA)
    beside = path.parent / "adapter_config.json"
    if text is not None:
        try:
            found = json.loads(text)
            entries = {str(key): value for key, value in found.items()}
        except (AttributeError, ValueError) as err:
            raise DataError(f"{path}: the metadata of the LoRA cannot be read", why=str(err)) from None
        config = {k.removeprefix(f"{part}."): v for k, v in entries.items() if k.startswith(f"{part}.")}
    elif path.name.startswith("adapter_model") and beside.is_file():
        config = read_json(beside)
    else:
        return {}
    if config.get("use_dora"):
        raise DataError(f"{path} is not a plain LoRA but DoRA", why="only W + (alpha / r) B A is supported")
    return config


def _add(weights: Weights, part: str, module: str, update: _Update, scales: _Scales, path: Path) -> None:
    """W + scale B A in place of W; DataError for half a pair or another shape."""
    name, down, up = f"{module}.weight", update.down, update.up
    if down is None or up is None:
        missing = "down" if down is None else "up"
        raise DataError(f"{path}: {part}.{module} has no {missing} factor", why="the file is incomplete")
    rank, weight = len(down) if down.ndim else 0, weights[name]
    if not rank or up.numel() != weight.shape[0] * rank or rank * weight[0].numel() != down.numel():
        raise DataError(
            f"{path}: the LoRA does not belong to this model",
            why=f"{part}.{module}: {list(up.shape)} x {list(down.shape)} is added to {list(weight.shape)}",
            fix="--base PIPELINE",
        )
    scale = scales.scale(part, module, rank) if update.alpha is None else update.alpha / rank
    product = up.reshape(weight.shape[0], rank) @ down.reshape(rank, -1)
    weights[name] = weight + scale * product.reshape(weight.shape)
