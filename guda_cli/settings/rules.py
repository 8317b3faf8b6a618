"""What values a recipe may have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from guda_cli.attribution import methods
from guda_cli.errors import RecipeError, unknown
from guda_cli.sections import BETA_SCHEDULES, PREDICTION_TYPES, SOURCES, Recipe, UnlearnSpec, subset_of


def _choice(path: str, value: str, known: Iterable[str]) -> None:
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
    "unlearn.beta": 0,
    "unlearn.anchor_descriptors": 1,
    "train.gradient_accumulation": 1,
    "latent.layers_per_block": 1,
    "latent.latent_channels": 1,
    "latent.norm_num_groups": 1,
    "latent.steps": 1,
    "latent.batch_size": 1,
    "latent.kl_weight": 0,
    "text.hidden_size": 1,
    "text.layers": 1,
    "text.heads": 1,
    "text.vocabulary": 514,  # all bytes, within and at the end of a word, and two marks
    "text.steps": 0,
    "text.batch_size": 2,
    "sample.guidance": 0,
    "score.timesteps": 1,
    "score.draws": 1,
    "sample.steps": 1,
    **{f"attribution.{name}": bound for name, bound in methods.bounds("at_least").items()},
}
_ABOVE: dict[str, float] = {
    "diffusion.beta_start": 0,
    "train.epochs": 0,
    "train.lr": 0,
    "train.grad_clip": 0,
    "unlearn.lr": 0,
    "unlearn.cap": 0,
    **{f"attribution.{name}": bound for name, bound in methods.bounds("above").items()},
    "unlearn.guard_temperature": 0,
    "latent.lr": 0,
    "text.lr": 0,
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


def validate(r: Recipe) -> None:
    """Check every value; RecipeError saying which is wrong and what it may be."""
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
    _choice("score.dtype", r.score.dtype, ("float32", "bfloat16", "float16"))
    _choice("train.mixed_precision", t.mixed_precision, ("no", "bf16", "fp16"))
    subset_of(t.params, "train.params")
    if r.model.text_conditional:
        _validate_text(r)


def _validate_text(r: Recipe) -> None:
    if r.model.class_conditional:
        raise RecipeError("model.text_conditional and model.class_conditional exclude each other")
    if r.train.flip:
        raise RecipeError(
            "train.flip does not go with model.text_conditional",
            why="latents are computed once, and a flipped latent is not the latent of the flipped image",
            fix="--set train.flip=false",
        )
    if not 0 <= r.train.prompt_dropout < 1:
        raise RecipeError(f"train.prompt_dropout is a share in [0, 1), not {r.train.prompt_dropout!r}")
    if r.text.hidden_size % r.text.heads:
        raise RecipeError(f"text.heads = {r.text.heads} does not divide text.hidden_size")
    for width in r.latent.block_out_channels:
        if width % r.latent.norm_num_groups:
            raise RecipeError(
                f"latent.norm_num_groups = {r.latent.norm_num_groups} does not divide {width} channels"
            )
    _choice("latent.posterior", r.latent.posterior, ("mean", "sample"))
    _validate_prompts(r)


def _validate_prompts(r: Recipe) -> None:
    try:
        names = re.compile(r.text.pattern).groupindex
    except re.error as err:
        raise RecipeError("text.pattern is no regular expression", why=str(err)) from None
    if not {"object", "style"} <= set(names):
        raise RecipeError("text.pattern needs the named groups (?P<object>...) and (?P<style>...)")
    if "{object}" not in r.text.template or "{style}" not in r.text.template:
        raise RecipeError("text.template needs {object} and {style}")


def _validate_unlearn(u: UnlearnSpec) -> None:
    _choice("unlearn.retain", u.retain, ("denoise", "distill"))
    subset_of(u.params)
    if u.t_min is not None and not 0 <= u.t_min < 1:
        raise RecipeError(f"unlearn.t_min is a fraction of T in [0, 1), not {u.t_min!r}")
    if not (u.t_min or 0.0) < u.t_max <= 1:
        raise RecipeError(f"unlearn.t_max is a fraction of T above t_min and at most 1, not {u.t_max!r}")
    if u.forget_share is not None and not (0 < u.forget_share < 1 and u.batch_size > 1):
        raise RecipeError(
            f"unlearn.forget_share is a share of a batch between 0 and 1, or null, not {u.forget_share!r}"
            + (" of a batch of one" if u.batch_size == 1 else "")
        )
    if not 0 <= u.eta <= 1:
        raise RecipeError(f"unlearn.eta is a share in [0, 1], not {u.eta!r}")
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
    side, of = r.data.size, "data.size"
    if r.model.text_conditional and not r.model.registered:
        factor = 2 ** (len(r.latent.block_out_channels) - 1)
        if side % factor:
            raise RecipeError(f"data.size = {side} is no multiple of {factor}, the VAE's scale")
        side, of = side // factor, "the latent's size"
    if side % 2 ** (levels - 1):
        raise RecipeError(
            f"{of} = {side} cannot be halved {levels - 1} times",
            why=f"the model has {levels} levels", fix="choose another size or fewer levels",
        )  # fmt: skip
