"""Weights of pipeline components: safetensors files, shards and variants, checked by their headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from guda_cli.checkpoints.config_fields import check_depth
from guda_cli.checkpoints.files import check_no_pickle, gguf_only, pickles_only, read_json
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError

DIFFUSION = "diffusion_pytorch_model"
TRANSFORMERS = "model"
"""Stems of the weight files that diffusers and transformers write."""

_PREFERRED = ("", "fp32", "fp16", "bf16")
_TEXT_PREFIX = "text_model."  # of CLIPTextModel's tensors, in all files but those of transformers >= 5.6
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_CLIP_BESIDE = ("text_projection", "logit_scale", "visual_projection.", "vision_model.")
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_QUANTISED = (
    ".scale_weight", ".weight_scale", ".absmax", ".quant_map", ".qweight", ".qzeros", ".SCB", ".comfy_quant",
    "scaled_fp8",
)  # fmt: skip
"""Names of what lies beside quantised weights, by the programs that quantise them."""


def read_weights(
    folder: Path, stem: str, what: str, check: Callable[[Weights], None] | None = None
) -> tuple[Weights, str]:
    """Weights in `folder`, mapped as they are, and the variant they come in ("" or fp16 and the like).

    One file, or shards with their index. `check` is given their names, shapes and dtypes, as tensors on the
    meta device; none of their numbers is read here, nor whether they are finite (`PackedWeights`). DataError
    for pickles, damaged files, an index that names files elsewhere or missing ones, and quantised weights.
    """
    path, variant = _find(folder, stem, what)
    files = [path] if path.suffix == ".safetensors" else _shards(path)
    header = {name: value for file in files for name, value in read_header(file).items()}
    if check is not None:
        check(header)
    check_plain(header, str(folder))
    weights: Weights = {}
    for file in files:
        weights.update(read_file(file))
    return weights, variant


def read_file(path: Path, starts: tuple[str, ...] = ("",)) -> Weights:
    """Tensors of one safetensors file whose names begin with one of `starts`, mapped: not read until used.

    DataError for pickles and damaged files, and for numbers of a kind that cannot be made float32.
    """
    with _opened(path) as file:
        names = [name for name in file.keys() if name.startswith(starts)]  # noqa: SIM118 - no mapping
        return {name: file.get_tensor(name) for name in names}


def read_header(path: Path, starts: tuple[str, ...] = ("",)) -> Weights:
    """As `read_file`, of the header alone: tensors on the meta device, which have a shape and no numbers."""
    header: Weights = {}
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            if name.startswith(starts):
                part = file.get_slice(name)
                kind = str(part.get_dtype())
                if kind not in _DTYPES:
                    raise DataError(
                        f"{path}: the tensor '{name}' has numbers of the kind {kind}",
                        why="they are codes of weights that were quantised",
                        fix="give the model as float16, bfloat16 or float32",
                    )
                header[name] = torch.empty(part.get_shape(), dtype=_DTYPES[kind], device="meta")
    return header


def check_plain(header: Weights, where: str) -> None:
    """DataError where tensors of `header` are quantised, in 8 bits or less.

    Those of float8 without scales would be read, but as other weights than were trained.
    """
    for name, value in sorted(header.items()):
        codes = name.endswith(".weight") and not value.is_floating_point()
        if codes or value.dtype in _FLOAT8 or name.endswith(_QUANTISED) or ".quant_state." in name:
            kind = str(value.dtype).removeprefix("torch.")
            raise DataError(
                f"{where}: the weights are quantised: '{name}' is {kind}",
                why="they are codes of numbers, or numbers of 8 bits, and no longer what was trained",
                fix="give the model as float16, bfloat16 or float32",
            )


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file, sorted; DataError for pickles and damaged files."""
    with _opened(path) as file:
        return sorted(file.keys())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file; what it says wrong inside the block is a DataError, too."""
    check_no_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as err:  # the last: odd dtypes
        raise DataError(f"{path} is not a readable safetensors file", why=str(err)) from None


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
    refusal = (pickles_only(folder, what) or gguf_only(folder)) if folder.is_dir() else None
    raise refusal or DataError(
        f"{folder}: {what} has no weights", why=f"looked for {stem}.safetensors, its variants and its shards"
    )


def _shards(index: Path) -> list[Path]:
    return [index.parent / name for name in shard_names(index)]


def shard_names(index: Path) -> list[str]:
    """Names of the files that the index of a model in shards leads to, sorted.

    DataError unless they are safetensors files beside it that are there.
    """
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise DataError(f"{index} names no shards", why="its weight_map does not say where the tensors are")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or "\\" in name:
            raise DataError(
                f"{index} names the shard '{name:.80}'",
                why="shards are safetensors files in the index's own folder",
            )
        if not (index.parent / name).is_file():
            raise DataError(f"{index.parent}: the shard {name} is missing", fix="download it again")
    return names


def plain_text_names(weights: Weights) -> Weights:
    """A CLIP text encoder's weights without the prefix and the position numbers that older files have."""
    named = {name.removeprefix(_TEXT_PREFIX): value for name, value in weights.items()}
    named.pop("embeddings.position_ids", None)
    return named


def prefixed_text_names(weights: Weights) -> Weights:
    """The inverse of `plain_text_names`: names that all versions of transformers and other tools read."""
    return {f"{_TEXT_PREFIX}{name.removeprefix(_TEXT_PREFIX)}": value for name, value in weights.items()}


def text_encoder_names(weights: Weights) -> Weights:
    """`plain_text_names` of what a `CLIPTextModel` has, without the rest of CLIP that may lie with it."""
    named = plain_text_names(weights)
    return {name: value for name, value in named.items() if not name.startswith(_CLIP_BESIDE)}


def modern_attention_names(weights: Weights) -> Weights:
    """Weights of a VAE or `UNet2DModel` under today's names of their attention layers.

    Until 2023 these were called otherwise (Stable Diffusion 1.x and 2.x, DDPMs), and some converted them from
    convolutions of 1 x 1 as they were.
    """
    parts = re.compile(
        rf"(.*\.attentions\.\d+)\.({'|'.join(_OLD_ATTENTION)}|to_[qkv]|to_out\.0)\.(weight|bias)"
    )
    named: Weights = {}
    for name, value in weights.items():
        match = parts.fullmatch(name)
        if match:
            name = f"{match[1]}.{_OLD_ATTENTION.get(match[2], match[2])}.{match[3]}"
            if value.ndim > 2 and set(value.shape[2:]) == {1}:
                value = value.reshape(value.shape[:2])
        if name in named:
            raise DataError(f"the weights have '{name}' under two names")
        named[name] = value
    return named


def check_fit(
    weights: Weights, config: Mapping[str, Any], build: Callable[[], torch.nn.Module], what: str
) -> None:
    """DataError unless names, shapes and kinds of `weights` are those of the network that `build` makes.

    It is built on the meta device, so that a network of a billion parameters costs no memory, and only if
    `config`, which it is made of, asks for no more layers than the weights can fill.
    """
    state = meta_state(config, len(weights), build, what)
    wanted = {name.removeprefix(_TEXT_PREFIX): value for name, value in state.items()}
    problems = [f"'{name}' is missing" for name in wanted.keys() - weights.keys()]
    problems += [f"'{name}' is unexpected" for name in weights.keys() - wanted.keys()]
    for name in wanted.keys() & weights.keys():
        have, want = weights[name], wanted[name]
        if have.shape != want.shape:
            problems.append(f"'{name}' is {list(have.shape)}, not {list(want.shape)}")
        elif have.is_floating_point() != want.is_floating_point():
            kinds = [str(value.dtype).removeprefix("torch.") for value in (have, want)]
            problems.append(f"'{name}' is {kinds[0]}, not {kinds[1]}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(
            f"{what}: the weights do not fit config.json", why="; ".join(sorted(problems)[:3]) + more
        )


def meta_state(
    config: Mapping[str, Any], tensors: int, build: Callable[[], torch.nn.Module], what: str
) -> Weights:
    """Names and shapes that a network of `config` has, which `build` makes; see `check_fit`."""
    check_depth(config, tensors, what)
    try:
        with torch.device("meta"):
            state: Weights = build().state_dict()
    except DataError:
        raise
    except Exception as err:  # noqa: BLE001 - of entries that make no sense the libraries raise all kinds
        why = (str(err) or type(err).__name__).splitlines()[0]
        raise DataError(f"{what}: no network can be built from its config.json", why=why) from None
    return state
