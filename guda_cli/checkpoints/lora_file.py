"""LoRA files of diffusers, peft and kohya's trainer (Hu et al. 2022), merged into a pipeline's weights.

A file holds for a module W [o, i, ...] the factors A [r, i, ...] ("down") and B [o, r, ...] ("up"); the
module becomes W + (alpha / r) B A. Without alpha the scale is 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from guda_cli.checkpoints import adapter_kinds
from guda_cli.checkpoints.adapter_file import LONGEST_NAME, AdapterFile, header, opened, settings_of
from guda_cli.checkpoints.adapter_names import KOHYA, PEFT, Modules, Place, is_similar, read_name
from guda_cli.checkpoints.pipeline_folder import Pipeline
from guda_cli.checkpoints.weights import plain_text_names
from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError

_PARTS = ("unet", "text_encoder")
_LARGE = 1e30  # products below this cannot leave float32's range, which spares a look at every weight
_OTHER_BASE = "give the pipeline it was trained on: --base PIPELINE"


@dataclass
class _Update:
    """The names of a module's tensors in the file, "" for those that are not there."""

    down: str = ""
    up: str = ""
    alpha: str = ""


def is_lora(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a low-rank update or one of its relatives."""
    return any(
        name.startswith(KOHYA) or ((n := read_name(name[:LONGEST_NAME])) and n.kind == "down")
        for name in names
    )


def check_adapter(path: Path) -> None:
    """DataError when the `.safetensors` file `path` is an adapter of another kind or for another family.

    By the names of its tensors and its settings alone: no base is needed.
    """
    with opened(path) as file:
        found = header(path, file)
    adapter_kinds.check_kind(path, found.shapes)
    if is_lora(found.shapes):
        for part in _PARTS:
            settings_of(found, part)


def apply_lora(pipeline: Pipeline, path: Path, bare: str = "unet") -> Pipeline:
    """`pipeline` with the LoRA in the `.safetensors` file `path` added to its unet and text encoder.

    Names that do not say their part are of the part `bare` where that has such a module, else of the other.

    Linear layers and convolutions, the names of peft, diffusers (old and new), kohya and CompVis. DataError
    for other kinds of update and for tensors that belong to no module of this pipeline.
    """
    with opened(path) as file:
        found = header(path, file)
        adapter_kinds.check_kind(path, found.shapes)
        parts = {
            "unet": dict(pipeline.unet.weights),
            "text_encoder": plain_text_names(pipeline.components.text_encoder.weights),
        }
        updates = _collected(found, {part: _modules(weights) for part, weights in parts.items()}, bare)
        shapes = {place: list(parts[place[0]][f"{place[1]}.weight"].shape) for place in updates}
        ranks = {
            place: _checked_rank(found, place, update, shapes[place]) for place, update in updates.items()
        }
        scales = _scales(found, updates, ranks)
        for place, update in updates.items():
            _add(parts[place[0]], place, update, scales[place], found)
    touched = {part for part, _ in updates}
    return _with(pipeline, parts, touched, found.notes)


def _with(pipeline: Pipeline, parts: Mapping[str, Weights], touched: set[str], notes: list[str]) -> Pipeline:
    if "text_encoder" in touched:
        text = pipeline.components.text_encoder.with_weights(parts["text_encoder"])
        components = dataclasses.replace(pipeline.components, text_encoder=text)
        pipeline = dataclasses.replace(pipeline, components=components)
    if "unet" in touched:
        pipeline = dataclasses.replace(pipeline, unet=pipeline.unet.with_weights(parts["unet"]))
    return dataclasses.replace(pipeline, notes=(*pipeline.notes, *notes))


def _modules(weights: Weights) -> set[str]:
    """Modules that a low-rank update can belong to: those with a weight of two or more dimensions."""
    return {
        name.removesuffix(".weight")
        for name, value in weights.items()
        if name.endswith(".weight") and value.ndim > 1
    }


def _collected(found: AdapterFile, modules: Mapping[str, set[str]], bare: str) -> dict[Place, _Update]:
    """The tensors by module; DataError when some fit nowhere, which are named."""
    names = Modules(modules)
    updates: dict[Place, _Update] = {}
    strangers: list[str] = []
    unknown: list[str] = []
    adapters: set[str] = set()
    for name in found.shapes:
        read = read_name(name)
        place = names.find(read.stem, bare) if read else None
        if read is None or place is None:
            (strangers if read else unknown).append(name)
            continue
        adapters.add(read.adapter)
        update = updates.setdefault(place, _Update())
        before = getattr(update, read.kind)
        if before and len(adapters) > 1:
            raise DataError(
                f"{found.path} has {len(adapters)} adapters: {', '.join(sorted(adapters))}",
                why="which of them is meant is not said",
                fix="save the one that is meant",
            )
        if before:
            raise DataError(
                f"{found.path} has two updates of {place[0]}.{place[1]}", why=f"'{before}' and '{name}'"
            )
        setattr(update, read.kind, name)
    if strangers or unknown or not updates:
        raise _belongs_nowhere(found, strangers, unknown)
    return updates


def _belongs_nowhere(found: AdapterFile, strangers: list[str], unknown: list[str]) -> DataError:
    """The error for tensors with no place, which blames the base only where that may be another's."""
    if unknown:
        return DataError(
            f"{found.path} is not a plain LoRA",
            why=f"of {_listed(unknown)} it is not known what they are; {adapter_kinds.ONLY}",
            fix=adapter_kinds.MERGE,
        )
    family = adapter_kinds.family(found.shapes, found.metadata)
    if family == "Stable Diffusion XL":
        return adapter_kinds.other_family(found.path, family, strangers[0])
    if not all(is_similar(name) for name in strangers):
        return DataError(
            f"{found.path}: the LoRA names modules that Stable Diffusion does not have",
            why=f"no module for {_listed([n for n in strangers if not is_similar(n)])}",
            fix=adapter_kinds.GIVE,
        )
    said = f"; it seems to be for {family}" if family else ""
    return DataError(
        f"{found.path}: the LoRA does not belong to this model",
        why=f"no module of it for {_listed(strangers)}{said}",
        fix=_OTHER_BASE,
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _checked_rank(found: AdapterFile, place: Place, update: _Update, shape: list[int]) -> int:
    """The rank of a module's factors; DataError for half a pair or factors of another shape than its."""
    where = ".".join(place)
    for kind in ("down", "up"):
        if not getattr(update, kind):
            raise DataError(f"{found.path}: {where} has no {kind} factor", why="the file is incomplete")
    down, up = found.shapes[update.down], found.shapes[update.up]
    if len(down) < 2 or len(up) < 2 or 0 in (*down, *up):
        raise DataError(
            f"{found.path}: the factors of {where} are no matrices",
            why=f"they are {up} and {down}: parts of a model that was saved while it lay on several devices",
            fix="save the LoRA again from one process",
        )
    rank = down[0]
    fits = up[0] == shape[0] and _size(up) == shape[0] * rank and _size(down) == rank * _size(shape[1:])
    if not fits or (len(down) > 2 and down[1] != shape[1]):
        family = adapter_kinds.family(found.shapes, found.metadata)
        if family == "Stable Diffusion XL":
            raise adapter_kinds.other_family(found.path, family, update.down)
        raise DataError(
            f"{found.path}: the LoRA does not belong to this model",
            why=f"{where}: {up} x {down} is added to {shape}"
            + (f"; it seems to be for {family}" if family else ""),
            fix=_OTHER_BASE,
        )
    if update.alpha and _size(found.shapes[update.alpha]) != 1:
        raise DataError(f"{found.path}: '{update.alpha}' is no single number", why="an alpha is one")
    return rank


def _size(shape: list[int]) -> int:
    return torch.Size(shape).numel()


def _scales(
    found: AdapterFile, updates: Mapping[Place, _Update], ranks: Mapping[Place, int]
) -> dict[Place, tuple[float, str]]:
    """The scale of each product and what was taken from the base in its place, by the file's settings.

    By alpha in the tensors, by the file's metadata or by peft's adapter_config.json; else the scale is 1.
    """
    out = {}
    configs = {part: settings_of(found, part) for part in _PARTS}
    for part, config in configs.items():
        inside = {module: rank for (own, module), rank in ranks.items() if own == part}
        said = config.scales(inside) if config else {}
        for module, rank in inside.items():
            name = updates[part, module].alpha
            own = float(found.read(name).reshape(())) / rank if name else None
            if own is not None and module in said and abs(own - said[module]) > 1e-3 * abs(own):
                raise DataError(
                    f"{found.path}: two scales of {part}.{module}",
                    why=f"{own:g} by '{name}', {said[module]:g} by {config.where if config else ''}",
                    fix="keep the one that it was trained with",
                )
            scale = own if own is not None else said.get(module, 1.0)
            out[part, module] = scale, config.init if config else ""
    silent = all(not update.alpha and update.down.startswith(PEFT) for update in updates.values())
    if silent and not any(configs.values()):
        found.notes.append(
            "the LoRA says no alpha and has no adapter_config.json: its factors were added with scale 1"
        )
    return out


def _add(
    weights: Weights, place: Place, update: _Update, scale: tuple[float, str], found: AdapterFile
) -> None:
    """W + scale B A in place of W, less the first B A where the LoRA was started by a part of W."""
    name, (factor, init) = f"{place[1]}.weight", scale
    weight, down, up = weights[name].float(), found.read(update.down), found.read(update.up)
    rank = len(down)
    product = up.reshape(weight.shape[0], rank) @ down.reshape(rank, -1)
    if init:
        weight = _without_first(weight, init, factor, rank, f"{found.path}: {'.'.join(place)}")
    weights[name] = weight + factor * product.reshape(weight.shape)
    if abs(factor) * rank * float(up.abs().max()) * float(down.abs().max()) > _LARGE:
        networks.check_finite({name: weights[name]}, f"the model with {found.path}")


def _without_first(weight: Tensor, init: str, scale: float, rank: int, where: str) -> Tensor:
    """W less the product that PiSSA or OLoRA start from, as peft takes it away when it loads such a LoRA.

    PiSSA (Meng et al. 2024): the `rank` greatest singular values; OLoRA (Büyükakyüz 2024): scale Q R of the
    first `rank` columns of Q.
    """
    if weight.ndim != 2 or rank > min(weight.shape):
        raise DataError(
            f"{where} was started by {init}, which is for linear layers",
            why=f"its weight is {list(weight.shape)}, the rank {rank}",
        )
    if init == "pissa":
        u, values, v = torch.linalg.svd(weight, full_matrices=False)
        first: Tensor = (u[:, :rank] * values[:rank]) @ v[:rank]
    else:
        q, triangle = torch.linalg.qr(weight)
        first = scale * q[:, :rank] @ triangle[:rank]
    return weight - first
