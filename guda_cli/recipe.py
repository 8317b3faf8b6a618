"""Recipes: frozen dataclasses read from YAML, with strict keys and `--set a.b=c` overrides.

A recipe fixes everything that decides the numbers: data, model, diffusion, training, unlearning,
scoring. Paths, devices and worker counts are not part of it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from guda_cli.errors import RecipeError, unknown

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
SOURCES = ("auto", "digits", "folder", "archive", "idx", "cifar-binary")


@dataclass(frozen=True)
class DataSpec:
    """Where the training images are and which groups they belong to."""

    source: str = "auto"  # see SOURCES; auto: by what lies at `path`
    path: str | None = None
    root: str = ""  # folder inside `path` that counts as the top, e.g. "train"
    group: tuple[str, ...] = ("folder",)  # "folder" or metadata column(s)
    size: int = 32  # pixels a side after preprocessing
    channels: int = 3  # 1 grey or 3 RGB
    groups: tuple[str, ...] = ()  # keep only these groups (empty: all)
    per_group: int | None = None  # at most this many images a group, in order of name


@dataclass(frozen=True)
class ModelSpec:
    """A diffusers `UNet2DModel`; field names are that class's own."""

    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: int = 1
    down_block_types: tuple[str, ...] = ("DownBlock2D", "DownBlock2D")
    up_block_types: tuple[str, ...] = ("UpBlock2D", "UpBlock2D")
    norm_num_groups: int = 8
    attention_head_dim: int | None = 8
    add_attention: bool = False  # attention in the middle block
    dropout: float = 0.0
    class_conditional: bool = False  # learns each image's group as its class
    registered: str | None = None  # action key of a model taken over with `guda train --from`


@dataclass(frozen=True)
class DiffusionSpec:
    """The forward process; field names are `DDPMScheduler`'s own."""

    num_train_timesteps: int = 1000
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool = False


@dataclass(frozen=True)
class TrainSpec:
    """How the full model and every leave-one-group-out model are trained."""

    epochs: float = 40.0  # passes over the full data set; `steps` wins when given
    steps: int | None = None
    batch_size: int = 128
    lr: float = 1e-3
    lr_schedule: str = "constant"  # constant | cosine, after the warm-up
    warmup_steps: int = 50
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_decay: float = 0.995
    flip: bool = False  # random horizontal flips
    class_dropout: float = 0.1  # share of images shown without class; class-conditional models only
    seed: int = 0


@dataclass(frozen=True)
class UnlearnSpec:
    """How one group is unlearned from the full model (method.md section 4)."""

    operator: str = "retrack"
    steps: int = 100
    batch_size: int = 128
    lr: float = 5e-4
    retain: str = "denoise"  # denoise | distill (towards the frozen full model)
    params: str = "full"  # what is trained: full | attn | cross-attn-kv | lora:R
    forget_weight: float | None = None  # lambda; None: the operator's own (unlearning/catalog.py)
    t_min: float | None = None  # forget terms below this fraction of T are masked; None: the operator's own
    t_max: float = 1.0  # and those above this one
    guard: bool = False  # images whose gradient agrees with the rest's are forgotten less
    guard_temperature: float = 1.0  # of these weights, in standard deviations of the agreement
    neighbours: int = 10  # K of retrack
    cap: float | None = None  # retrack: limit on ||eps_r - eps|| of each neighbour
    density_ratio: bool = False  # retrack: weight entries by p_-k(x_t) / p_k(x_t)
    guidance: float = 1.0  # eta of esd: how far past the null condition the target lies
    erase_rate: float = 0.02  # eta of erasediff: least rate at which the forget loss falls
    mixture: float = 0.5  # lambda of siss: share of latents drawn from the group
    superfactor: float = 0.1  # siss: limit on the ascent's gradient, as a share of the other term's
    null_groups: int = 6  # random size-matched groups for the null (per size class)
    seed: int = 0


@dataclass(frozen=True)
class ScoreSpec:
    """The Monte-Carlo estimate of the ELBO differences (method.md sections 2-3)."""

    timesteps: int = 50
    grid: str = "strata"  # strata | stride:N | all
    draws: int = 2
    weighting: str = "min-snr:5"
    seed: int = 0


@dataclass(frozen=True)
class AttributionSpec:
    """The rival methods (method.md section 5); guda and logo read nothing of it."""

    per_group: int | None = 100  # training images a group that instance-level methods look at (null: all)
    timesteps: int = 10  # strata of the losses and gradients
    draws: int = 1
    projection: int = 2048  # dimensions of projected gradients
    ridge: float | None = None  # in mean eigenvalues of the features' second moment; null: chosen from them
    aggregate: str = "mean"  # training images' scores to a group's: mean | sum | max | top:M
    query_rise: float = 1.0  # unlearn-query: relative rise of the query's loss that its step aims at
    damping: float = 0.01  # of its Fisher diagonal, in means of it
    mucs_steps: int = 50  # mucs: at most, a query
    mucs_lr: float = 1e-3
    encoder: str = "pixels"  # of similarity: pixels, or a CLIP or DINO model's folder or hub id
    seed: int = 0


@dataclass(frozen=True)
class SampleSpec:
    """How query images are drawn from a model."""

    sampler: str = "ddim"  # ddim | ddpm
    steps: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the numbers of one project."""

    name: str = "unnamed"
    description: str = ""
    data: DataSpec = field(default_factory=DataSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    diffusion: DiffusionSpec = field(default_factory=DiffusionSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    unlearn: UnlearnSpec = field(default_factory=UnlearnSpec)
    score: ScoreSpec = field(default_factory=ScoreSpec)
    sample: SampleSpec = field(default_factory=SampleSpec)
    attribution: AttributionSpec = field(default_factory=AttributionSpec)


def subset_of(params: str) -> tuple[str, int]:
    """`unlearn.params` as its kind and rank: ("lora", 4) of `lora:4`, ("attn", 0) of `attn`.

    RecipeError when it is none of full, attn, cross-attn-kv, lora:R with R at least 1.
    """
    kind, colon, rank = params.partition(":")
    if kind == "lora" and rank.isdecimal() and int(rank) > 0:
        return kind, int(rank)
    if colon or kind not in ("full", "attn", "cross-attn-kv"):
        raise RecipeError(
            f"unlearn.params cannot be {params!r}",
            why="it is one of full, attn, cross-attn-kv, lora:R",
            fix="--set unlearn.params=lora:4",
        )
    return kind, 0


def total_steps(spec: TrainSpec, images: int) -> int:
    """Optimiser steps of the full model on `images` images; leave-one-group-out models take as many."""
    return spec.steps or max(1, math.ceil(spec.epochs * images / spec.batch_size))


def to_dict(spec: Any) -> dict[str, Any]:
    """A recipe or one of its sections as plain JSON-ready values."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(spec):
        value = getattr(spec, f.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        out[f.name] = value
    return out


def from_dict(values: dict[str, Any]) -> Recipe:
    """Build and validate a recipe; unknown keys and wrong types raise RecipeError."""
    recipe: Recipe = _build(Recipe, values, "")
    _validate(recipe)
    return recipe


def parse(text: str, *, where: str = "recipe") -> dict[str, Any]:
    """YAML text to a mapping; RecipeError on bad YAML or when it is not a mapping."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise RecipeError(f"{where} is not valid YAML", why=str(err)) from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise RecipeError(f"{where} must be a mapping of sections", why=f"it is a {type(values).__name__}")
    return values


def apply_sets(values: dict[str, Any], sets: typing.Sequence[str]) -> dict[str, Any]:
    """`values` with every `a.b=c` of `sets` applied (c is read as YAML).

    Another `unlearn.operator` drops what was set for the one before (its weight and window).
    """
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    unlearn = values.get("unlearn")
    if isinstance(unlearn, dict) and any(
        item.partition("=")[0].strip() == "unlearn.operator"
        and item.partition("=")[2].strip() != unlearn.get("operator", UnlearnSpec.operator)
        for item in sets
    ):
        values["unlearn"] = {k: v for k, v in unlearn.items() if k not in ("forget_weight", "t_min")}
    for item in sets:
        path, eq, text = item.partition("=")
        if not eq or not path.strip():
            raise RecipeError(f"--set {item!r} is not of the form section.key=value")
        *sections, key = path.strip().split(".")
        here = values
        for section in sections:
            here = here.setdefault(section, {})
            if not isinstance(here, dict):
                raise RecipeError(f"--set {path}: {section} is not a section")
        try:
            here[key] = yaml.safe_load(text)
        except yaml.YAMLError as err:
            raise RecipeError(f"--set {item!r}: the value is not valid YAML", why=str(err)) from None
    return values


def dump(recipe: Recipe) -> str:
    """The full recipe as YAML that `guda train` reads back."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)


def resolve_path(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """`values` with a relative `data.path` made absolute against `base`."""
    data = values.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        path = Path(data["path"]).expanduser()
        data = {**data, "path": str(path if path.is_absolute() else (base / path).resolve())}
        values = {**values, "data": data}
    return values


def _build(cls: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise RecipeError(f"section {where or 'recipe'} must be a mapping")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise RecipeError(unknown(f"key in {where or 'the recipe'}", str(key), hints))
    made = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        made[key] = _convert(hints[key], value, path)
    return cls(**made)


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value if value is not None else {}, path)
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if typing.get_origin(hint) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_convert(typing.get_args(hint)[0], v, path) for v in items)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML reads 1e-5 as text
        try:
            return float(value)
        except ValueError:
            pass
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise RecipeError(f"{path} must be {_TYPE_NAMES.get(hint, hint)}, not {value!r}")


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _choice(path: str, value: str, known: typing.Iterable[str]) -> None:
    known = tuple(known)
    if value not in known:
        raise RecipeError(f"{path}: {unknown('value', value, known)}", why="one of " + ", ".join(known))


# Smallest allowed value (inclusive) and open lower bound of every number; None values are free.
_AT_LEAST: dict[str, float] = {
    "data.size": 1,
    "data.per_group": 1,
    "diffusion.num_train_timesteps": 2,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.weight_decay": 0,
    "train.warmup_steps": 0,
    "unlearn.steps": 1,
    "unlearn.batch_size": 1,
    "unlearn.neighbours": 1,
    "unlearn.forget_weight": 0,
    "unlearn.guidance": 0,
    "unlearn.erase_rate": 0,
    "unlearn.superfactor": 0,
    "unlearn.null_groups": 0,
    "score.timesteps": 1,
    "score.draws": 1,
    "sample.steps": 1,
    "attribution.per_group": 1,
    "attribution.timesteps": 1,
    "attribution.draws": 1,
    "attribution.projection": 1,
    "attribution.mucs_steps": 1,
}
_ABOVE: dict[str, float] = {
    "diffusion.beta_start": 0,
    "train.epochs": 0,
    "train.lr": 0,
    "train.grad_clip": 0,
    "unlearn.lr": 0,
    "unlearn.cap": 0,
    "attribution.ridge": 0,
    "attribution.query_rise": 0,
    "attribution.damping": 0,
    "attribution.mucs_lr": 0,
    "unlearn.guard_temperature": 0,
}


def _check_bounds(recipe: Recipe) -> None:
    for bounds, fits, words in (
        (_AT_LEAST, float.__ge__, "at least"),
        (_ABOVE, float.__gt__, "above"),
    ):
        for path, bound in bounds.items():
            section, _, key = path.partition(".")
            value = getattr(getattr(recipe, section), key)
            if value is not None and not (math.isfinite(value) and fits(float(value), float(bound))):
                raise RecipeError(f"{path} must be {words} {bound:g}, not {value!r}")


def _validate(r: Recipe) -> None:
    _choice("data.source", r.data.source, SOURCES)
    if r.data.channels not in (1, 3):
        raise RecipeError(f"data.channels must be 1 or 3, not {r.data.channels}")
    _validate_model(r)
    _choice("diffusion.beta_schedule", r.diffusion.beta_schedule, BETA_SCHEDULES)
    _choice("diffusion.prediction_type", r.diffusion.prediction_type, PREDICTION_TYPES)
    if not r.diffusion.beta_start <= r.diffusion.beta_end < 1:
        raise RecipeError("diffusion.beta_end must lie between beta_start and 1")
    if r.diffusion.rescale_betas_zero_snr and r.diffusion.prediction_type == "epsilon":
        raise RecipeError(
            "diffusion.rescale_betas_zero_snr needs prediction_type v_prediction or sample",
            why="at zero signal-to-noise a noise prediction says nothing about the image",
        )
    t, u = r.train, r.unlearn
    _check_bounds(r)
    if not 0 <= t.ema_decay < 1:
        raise RecipeError(f"train.ema_decay must be in [0, 1), not {t.ema_decay!r}")
    if not 0 <= t.class_dropout < 1:
        raise RecipeError(f"train.class_dropout is a share in [0, 1), not {t.class_dropout!r}")
    _choice("train.lr_schedule", t.lr_schedule, ("constant", "cosine"))
    _validate_unlearn(u)
    _choice("sample.sampler", r.sample.sampler, ("ddim", "ddpm"))


def _validate_unlearn(u: UnlearnSpec) -> None:
    _choice("unlearn.retain", u.retain, ("denoise", "distill"))
    subset_of(u.params)
    if u.t_min is not None and not 0 <= u.t_min < 1:
        raise RecipeError(f"unlearn.t_min is a fraction of T in [0, 1), not {u.t_min!r}")
    if not (u.t_min or 0.0) < u.t_max <= 1:
        raise RecipeError(f"unlearn.t_max is a fraction of T above t_min and at most 1, not {u.t_max!r}")
    if not 0 <= u.mixture <= 1:
        raise RecipeError(f"unlearn.mixture is a share in [0, 1], not {u.mixture!r}")


def _validate_model(r: Recipe) -> None:
    m = r.model
    levels = len(m.block_out_channels)
    if not levels == len(m.down_block_types) == len(m.up_block_types):
        raise RecipeError(
            "model.block_out_channels, down_block_types and up_block_types must be equally long",
            why=f"they have {levels}, {len(m.down_block_types)} and {len(m.up_block_types)} entries",
        )
    for width in m.block_out_channels:
        if width % m.norm_num_groups:
            raise RecipeError(f"model.norm_num_groups = {m.norm_num_groups} does not divide {width} channels")
    if r.data.size % 2 ** (levels - 1):
        raise RecipeError(
            f"data.size = {r.data.size} cannot be halved {levels - 1} times",
            why=f"the model has {levels} levels", fix="choose another size or fewer levels",
        )  # fmt: skip
