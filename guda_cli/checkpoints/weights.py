"""Weights of pipeline components: safetensors files, shards and variants read as float32 and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from guda_cli.checkpoints.files import check_no_pickle, pickles_only, read_json
from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError

DIFFUSION = "diffusion_pytorch_model"
TRANSFORMERS = "model"
"""Stems of the weight files that diffusers and transformers write."""

_PREFERRED = ("", "fp32", "fp16", "bf16")
_TEXT_PREFIX = "text_model."  # of CLIPTextModel's tensors, in all files but those of transformers >= 5.6
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_weights(folder: Path, stem: str, what: str) -> tuple[Weights, str]:
    """Weights in `folder` as float32, and the variant they come in ("" or fp16 and the like).

    One file, or shards with their index. DataError for pickles, damaged files, an index that names files
    elsewhere or missing ones, and values that are not finite.
    """
    path, variant = _find(folder, stem, what)
    files = [path] if path.suffix == ".safetensors" else _shards(path)
    weights: Weights = {}
    for file in files:
        weights.update(read_file(file))
    networks.check_finite(weights, f"{folder}: {what}")
    return weights, variant


def read_file(path: Path, starts: tuple[str, ...] = ("",)) -> Weights:
    """Tensors of one safetensors file whose names begin with one of `starts`, floating ones as float32.

    DataError for pickles and damaged files.
    """
    check_no_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(starts)]  # noqa: SIM118 - no mapping
            return {name: _plain(file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError, ValueError) as err:
        raise DataError(f"{path} is not a readable safetensors file", why=str(err)) from None


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file, sorted; DataError for pickles and damaged files."""
    check_no_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            return sorted(file.keys())
    except (SafetensorError, OSError, ValueError) as err:
        raise DataError(f"{path} is not a readable safetensors file", why=str(err)) from None


def _plain(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _find(folder: Path, stem: str, what: str) -> tuple[Path, str]:
    """The file or index to read: without variant where there is one, else the most exact variant."""
    pattern = re.compile(
        rf"{stem}(?:\.(?P<a>\w+))?\.safetensors(?:\.index(?:\.(?P<b>\w+))?\.json)?"  # shards have a hyphen
    )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = pattern.fullmatch(path.name)
        if match:
            found.setdefault(match["a"] or match["b"] or "", path)
    for variant in _PREFERRED:
        if variant in found:
            return found[variant], variant
    if len(found) == 1:
        return next((path, variant) for variant, path in found.items())
    if found:
        raise DataError(
            f"{folder}: {what} has the variants {', '.join(sorted(found))}",
            why="which one is meant is not said",
            fix=f"rename one to {stem}.safetensors",
        )
    refusal = pickles_only(folder, what) if folder.is_dir() else None
    raise refusal or DataError(
        f"{folder}: {what} has no weights", why=f"looked for {stem}.safetensors, its variants and its shards"
    )


def _shards(index: Path) -> list[Path]:
    names = set(read_json(index).get("weight_map", {}).values())
    for name in sorted(map(str, names)):
        if Path(name).name != name or not name.endswith(".safetensors") or "\\" in name:
            raise DataError(
                f"{index} names the shard '{name}'",
                why="shards are safetensors files in the index's own folder",
            )
        if not (index.parent / name).is_file():
            raise DataError(f"{index.parent}: the shard {name} is missing", fix="download it again")
    if not names:
        raise DataError(f"{index} names no shards")
    return sorted(index.parent / name for name in names)


def plain_text_names(weights: Weights) -> Weights:
    """A CLIP text encoder's weights without the prefix and the position numbers that older files have."""
    named = {name.removeprefix(_TEXT_PREFIX): value for name, value in weights.items()}
    named.pop("embeddings.position_ids", None)
    return named


def prefixed_text_names(weights: Weights) -> Weights:
    """The inverse of `plain_text_names`: names that all versions of transformers and other tools read."""
    return {f"{_TEXT_PREFIX}{name.removeprefix(_TEXT_PREFIX)}": value for name, value in weights.items()}


def modern_vae_names(weights: Weights) -> Weights:
    """A VAE's weights under today's names of the attention layers (Stable Diffusion 1.x has older ones)."""
    old = re.compile(rf"(.*\.attentions\.\d+)\.({'|'.join(_OLD_ATTENTION)})\.(weight|bias)")
    named: Weights = {}
    for name, value in weights.items():
        match = old.fullmatch(name)
        named[f"{match[1]}.{_OLD_ATTENTION[match[2]]}.{match[3]}" if match else name] = value
    return named


def check_fit(weights: Weights, build: Callable[[], torch.nn.Module], what: str) -> None:
    """DataError unless names and shapes of `weights` are those of the network that `build` makes.

    It is built on the meta device, so that a network of a billion parameters costs no memory.
    """
    try:
        with torch.device("meta"):
            state = build().state_dict()
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as err:
        raise DataError(f"{what}: no network can be built from its config.json", why=str(err)) from None
    wanted = {name.removeprefix(_TEXT_PREFIX): tuple(value.shape) for name, value in state.items()}
    have = {name: tuple(value.shape) for name, value in weights.items()}
    problems = [f"'{name}' is missing" for name in wanted.keys() - have.keys()]
    problems += [f"'{name}' is unexpected" for name in have.keys() - wanted.keys()]
    problems += [
        f"'{name}' is {list(have[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in have and have[name] != shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(
            f"{what}: the weights do not fit config.json", why="; ".join(sorted(problems)[:3]) + more
        )
