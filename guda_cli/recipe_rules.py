"""What values a recipe may have."""

from __future__ import annotations

import math
from collections.abc import Iterable

from guda_cli.errors import RecipeError, unknown
from guda_cli.recipe_specs import BETA_SCHEDULES, PREDICTION_TYPES, SOURCES, Recipe, UnlearnSpec, subset_of


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
