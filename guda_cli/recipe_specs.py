"""The sections of a recipe as frozen dataclasses, with their defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from guda_cli.errors import RecipeError

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
