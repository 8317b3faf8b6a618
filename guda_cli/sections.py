"""The sections of a recipe as frozen dataclasses, with their defaults."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from guda_cli import typed_number
from guda_cli.errors import RecipeError

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


Options = tuple[tuple[str, Any], ...]
"""Names and values of settings that a section has no field for."""


@dataclass(frozen=True)
class Bounds:
    """Which numbers an entry may be; None is always allowed."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None

    def check(self, path: str, value: Any) -> None:
        """RecipeError, which names the entry `path`, unless `value` lies within."""
        if value is None or isinstance(value, (str, bool)):
            return
        number, wanted = float(value), self.words()
        inside = (
            math.isfinite(number)
            and (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
        )
        if wanted and not inside:
            raise RecipeError(f"{path} {wanted}, not {value!r}")

    def words(self) -> str:
        """What follows the entry's name in a message."""
        if self.at_most is not None:
            return f"is a share in [{self.at_least or 0:g}, {self.at_most:g}]"
        if self.above is not None:
            return f"must be above {self.above:g}"
        return f"must be at least {self.at_least:g}" if self.at_least is not None else ""


ANY, AT_LEAST_0, AT_LEAST_1, POSITIVE = Bounds(), Bounds(at_least=0), Bounds(at_least=1), Bounds(above=0)
SHARE = Bounds(at_least=0, at_most=1)


@dataclass(frozen=True)
class Setting:
    """One entry of a recipe's section that an operator (`unlearn`) or a method (`attribution`) reads."""

    name: str
    usual: Any = None
    """What null, or nothing, in the recipe stands for; None where the recipe's own default counts."""
    bounds: Bounds = ANY
    later: bool = False
    """Whether it came after the operator: left out of keys where it is the default, so that they stay."""


@dataclass(frozen=True)
class DataSpec:
    """Where the training images are and which groups they belong to."""

    source: str = "auto"  # see data.sources.detect; auto: by what lies at `path`
    path: str | None = None
    root: str = ""  # folder inside `path` that counts as the top, e.g. "train"
    group: tuple[str, ...] = ("folder",)  # "folder" or metadata column(s)
    size: int = 32  # pixels a side after preprocessing
    channels: int = 3  # 1 grey or 3 RGB
    groups: tuple[str, ...] = ()  # keep only these groups (empty: all)
    per_group: int | None = None  # at most this many images a group, in order of name
    held_out: float = 0.0  # share of every group's images kept out of training, for checks and verdicts
    common: str | None = None  # metadata column: keep images whose value of it is in every group
    prompts: str | None = None  # JSON lines or CSV of file_name, prompt, in `path` or a file (null: metadata)
    descriptors: str | None = None  # metadata column of style descriptors (null: those in prompts)


@dataclass(frozen=True)
class ModelSpec:
    """A diffusers `UNet2DModel`, with `text_conditional` a `UNet2DConditionModel`; the names are theirs."""

    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: int = 1
    down_block_types: tuple[str, ...] = ("DownBlock2D", "DownBlock2D")
    up_block_types: tuple[str, ...] = ("UpBlock2D", "UpBlock2D")
    norm_num_groups: int = 8
    attention_head_dim: int | None = 8
    add_attention: bool = False  # attention in the middle block
    dropout: float = 0.0
    class_conditional: bool = False  # learns each image's group as its class
    text_conditional: bool = False  # latent diffusion that reads each image's prompt; see `latent` and `text`
    base: str | None = None  # action key of the pipeline that `guda train --from` starts from
    registered: str | None = None  # action key of a model taken over with `guda train --from`
    family: str | None = None  # kind of model (null: pixels, or stable-diffusion where it reads prompts)


@dataclass(frozen=True)
class LatentSpec:
    """The `AutoencoderKL` of a text-to-image recipe, trained once where no pipeline brings one."""

    block_out_channels: tuple[int, ...] = (16, 32, 32)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 2  # few: narrow groups lose the colour of flat areas
    steps: int = 3000
    batch_size: int = 8
    lr: float = 2e-3
    kl_weight: float = 1e-6  # of the KL divergence, in nats a pixel, against the mean squared error
    posterior: str = "mean"  # mean | sample: which latent of an image the network is trained on
    check_scaling: bool = True  # refuse a pipeline whose latents are far too large
    seed: int = 0


@dataclass(frozen=True)
class TextSpec:
    """Prompts, and the CLIP text encoder that is trained once where no pipeline brings one."""

    pattern: str = "(?P<object>.*?), artistic style featuring (?P<style>.*)"  # of prompts
    template: str = "{object}, artistic style featuring {style}"  # the two put together again
    separator: str = ", "  # between the descriptors of a style part
    descriptors: str | None = None  # JSON file: group -> its style descriptors (null: those of its prompts)
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    vocabulary: int = 1024  # tokens of the byte-pair encoding learnt from the prompts
    steps: int = 600  # of contrastive training against the images (Radford et al. 2021); 0: stays random
    batch_size: int = 128
    lr: float = 1e-3
    seed: int = 0


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
    prompt_dropout: float = 0.1  # share of images shown with the empty prompt; text-conditional models only
    params: str = "full"  # what is trained from a given pipeline: full | attn | cross-attn-kv | lora:R
    gradient_accumulation: int = 1  # parts that a batch is computed in
    gradient_checkpointing: bool = False  # less memory, a third more time
    mixed_precision: str = "no"  # no | bf16 | fp16: of training's and unlearning's forwards
    seed: int = 0


@dataclass(frozen=True)
class UnlearnSpec:
    """How one group is unlearned from the full model (docs/methods.md)."""

    operator: str = "retrack"
    steps: int = 400
    batch_size: int = 32
    lr: float = 3e-4
    retain: str = "denoise"  # denoise | distill (towards the frozen full model)
    params: str = "full"  # what is trained: full | attn | cross-attn-kv | lora:R
    forget_weight: float | None = None  # lambda; None: the operator's own (unlearning/catalog.py)
    forget_share: float | None = None  # of each batch drawn from the group; None: its share of the data
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
    beta: float = 2.0  # anchor:awss: how strongly styles close in text are preferred as anchors
    eta: float = 0.3  # anchor:awss: share of anchors drawn evenly from all other styles
    anchor_descriptors: int = 3  # descriptors of the anchor's style in its prompt
    anchor_encoder: str | None = None  # CLIP folder or hub id for descriptors (null: the model's own encoder)
    null_groups: int = 0  # random sets of the groups' sizes, unlearned alike: a control, in no verdict
    seed: int = 0
    seeds: tuple[int, ...] = ()  # several models a group, whose scores are averaged (empty: one, of `seed`)
    options: Options = ()  # settings that only an operator of another package has, beside these in a recipe


@dataclass(frozen=True)
class ScoreSpec:
    """The Monte-Carlo estimate of the ELBO differences (docs/methods.md)."""

    timesteps: int = 50
    grid: str = "strata"  # strata (wide where terms are small) | strata:even | stride:N | all
    draws: int = 2
    weighting: str = "min-snr:5"
    most_draws: int = 16  # at most, for a group of which it is not clear whether it stands out
    calibration: int = 200  # images that verdicts are calibrated on, held out or trained on (0: no verdicts)
    dtype: str = "auto"  # auto (float32 on a CPU) | float32 | bfloat16 | float16: forwards; sums are float64
    seed: int = 0


@dataclass(frozen=True)
class AttributionSpec:
    """The rival methods; guda and logo read nothing of it."""

    per_group: int | None = 100  # training images a group that instance-level methods look at (null: all)
    timesteps: int = 10  # strata of the losses and gradients
    draws: int = 1
    projection: int = 2048  # dimensions of projected gradients
    ridge: float | None = None  # in mean eigenvalues of the features' second moment; null: chosen from them
    das_squared: bool = False  # das: squares of scores, which have no sign
    das_profile: bool = False  # das: residual norms as shares of an image's own over t, not of the noise's
    aggregate: str = "mean"  # training images' scores to a group's: mean | sum | max | top:M
    query_rise: float = 1.0  # unlearn-query: relative rise of the query's loss that its step aims at
    damping: float = 0.01  # of its Fisher diagonal, in means of it
    damping_by_layer: bool = False  # each tensor by its own mean, instead of all by one
    ekfac_damping: float = 0.1  # of its curvature, in means of each layer's eigenvalues
    mucs_steps: int = 50  # mucs: at most, a query
    mucs_lr: float = 1e-3
    nda_patch: int | None = None  # nda: pixels a side, odd (null: 7 of 32, at least 3)
    nda_t_max: float = 0.5  # nda: its timesteps lie below this share of T
    encoder: str = "pixels"  # of similarity: pixels, or a CLIP or DINO model's folder or hub id
    seed: int = 0
    options: Options = ()  # settings that only a method of another package has, beside these in a recipe


@dataclass(frozen=True)
class SampleSpec:
    """How query images are drawn from a model."""

    sampler: str = "ddim"  # ddim | ddpm
    steps: int = 50
    guidance: float = 1.0  # classifier-free guidance towards the class or prompt (1: none)
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the numbers of one project."""

    name: str = "unnamed"
    description: str = ""
    data: DataSpec = field(default_factory=DataSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    latent: LatentSpec = field(default_factory=LatentSpec)
    text: TextSpec = field(default_factory=TextSpec)
    diffusion: DiffusionSpec = field(default_factory=DiffusionSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    unlearn: UnlearnSpec = field(default_factory=UnlearnSpec)
    score: ScoreSpec = field(default_factory=ScoreSpec)
    sample: SampleSpec = field(default_factory=SampleSpec)
    attribution: AttributionSpec = field(default_factory=AttributionSpec)


def subset_of(params: str, where: str = "unlearn.params") -> tuple[str, int]:
    """The value of `where` as its kind and rank: ("lora", 4) of `lora:4`, ("attn", 0) of `attn`.

    RecipeError when it is none of full, attn, cross-attn-kv, lora:R with R at least 1.
    """
    kind, colon, rank = params.partition(":")
    if kind == "lora" and (wanted := typed_number.whole(rank)):
        return kind, wanted
    if colon or kind not in ("full", "attn", "cross-attn-kv"):
        raise RecipeError(
            f"{where} cannot be {params!r}",
            why="it is one of full, attn, cross-attn-kv, lora:R",
            fix=f"--set {where}=lora:4",
        )
    return kind, 0


DROPOUT = {"class": "class_dropout", "prompt": "prompt_dropout"}
"""Which entry of `train` is the share of images shown without what they are told."""

# Entries of the `model` section that are no settings of a diffusers class.
_OURS = ("base", "registered", "text_conditional", "class_conditional", "family")


def network_settings(recipe: Recipe) -> dict[str, Any]:
    """The `model` section as far as it configures a network of diffusers."""
    return {name: value for name, value in to_dict(recipe.model).items() if name not in _OURS}


def total_steps(spec: TrainSpec, images: int) -> int:
    """Optimiser steps of the full model on `images` images; leave-one-group-out models take as many."""
    return spec.steps or max(1, math.ceil(spec.epochs * images / spec.batch_size))


def to_dict(spec: Any) -> dict[str, Any]:
    """A recipe or one of its sections as plain JSON-ready values."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(spec):
        value = getattr(spec, f.name)
        if f.name == "options":
            out |= dict(value)
            continue
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        out[f.name] = value
    return out
