"""What values a recipe may have."""

from __future__ import annotations

import re
from collections.abc import Iterable

from guda_cli.attribution import methods
from guda_cli.data.sources.detect import SOURCES
from guda_cli.errors import RecipeError, unknown
from guda_cli.families.family import Family
from guda_cli.families.known import family_of
from guda_cli.sections import (
    AT_LEAST_0,
    AT_LEAST_1,
    BETA_SCHEDULES,
    POSITIVE,
    PREDICTION_TYPES,
    Bounds,
    Recipe,
    UnlearnSpec,
    subset_of,
)
from guda_cli.unlearning import catalog


def _choice(path: str, value: str, known: Iterable[str]) -> None:
    known = tuple(known)
    if value not in known:
        raise RecipeError(f"{path}: {unknown('value', value, known)}", why="one of " + ", ".join(known))


_MOST_NULLS = 10_000
_BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(
        (
            "data.size", "data.per_group", "train.steps", "train.batch_size", "train.gradient_accumulation",
            "unlearn.steps", "unlearn.batch_size", "latent.layers_per_block", "latent.latent_channels",
            "latent.norm_num_groups", "latent.steps", "latent.batch_size", "text.hidden_size", "text.layers",
            "text.heads", "score.timesteps", "score.draws", "sample.steps",
        ),
        AT_LEAST_1,
    ),
    **dict.fromkeys(
        (
            "train.weight_decay", "train.warmup_steps", "unlearn.null_groups", "latent.kl_weight",
            "score.most_draws", "score.calibration",
            "text.steps", "sample.guidance", "latent.seed", "text.seed", "train.seed", "unlearn.seed",
            "unlearn.seeds", "score.seed", "attribution.seed", "sample.seed",
        ),
        AT_LEAST_0,
    ),
    **dict.fromkeys(
        (
            "diffusion.beta_start", "train.epochs", "train.lr", "train.grad_clip", "unlearn.lr",
            "unlearn.guard_temperature", "latent.lr", "text.lr",
        ),
        POSITIVE,
    ),
    "data.held_out": Bounds(at_least=0, at_most=0.5),
    "diffusion.num_train_timesteps": Bounds(at_least=2),
    "text.vocabulary": Bounds(at_least=514),  # all bytes, within and at the end of a word, and two marks
    "text.batch_size": Bounds(at_least=2),
}  # fmt: skip


def _check_bounds(recipe: Recipe) -> None:
    for path, bounds in _BOUNDS.items():
        section, _, key = path.partition(".")
        value = getattr(getattr(recipe, section), key)
        for one in value if isinstance(value, tuple) else [value]:
            bounds.check(path, one)


def validate(r: Recipe) -> None:
    """Check every value; RecipeError saying which is wrong and what it may be."""
    _choice("data.source", r.data.source, SOURCES)
    if r.data.channels not in (1, 3):
        raise RecipeError(f"data.channels must be 1 or 3, not {r.data.channels}")
    family_of(r).check_recipe(r)
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
    methods.check_settings(r.attribution)
    _choice("sample.sampler", r.sample.sampler, ("ddim", "ddpm"))
    _choice("score.dtype", r.score.dtype, ("auto", "float32", "bfloat16", "float16"))
    _choice("train.mixed_precision", t.mixed_precision, ("no", "bf16", "fp16"))
    subset_of(t.params, "train.params")
    _validate_latents(r, family_of(r))


def _validate_latents(r: Recipe, family: Family) -> None:
    if family.latent and r.train.flip:
        raise RecipeError(
            f"train.flip does not go with {'model.text_conditional' if family.prompts else 'latents'}",
            why="latents are computed once, and a flipped latent is not the latent of the flipped image",
            fix="--set train.flip=false",
        )
    if not 0 <= r.train.prompt_dropout < 1:
        raise RecipeError(f"train.prompt_dropout is a share in [0, 1), not {r.train.prompt_dropout!r}")
    if family.latent:
        _choice("latent.posterior", r.latent.posterior, ("mean", "sample"))
    if family.prompts:
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
    if u.null_groups > _MOST_NULLS:
        raise RecipeError(
            f"unlearn.null_groups is at most {_MOST_NULLS:,}, not {u.null_groups:,}",
            why="each random set is a model to be unlearned and kept",
            fix="--set unlearn.null_groups=20",
        )
    catalog.check_settings(u)
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
