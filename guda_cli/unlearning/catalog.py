"""The operators by name, the settings each one reads, and what it needs of a model; imports no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from guda_cli.errors import RecipeError, unknown
from guda_cli.recipe import UnlearnSpec, subset_of

COMMON = ("steps", "batch_size", "lr", "retain", "seed")
OPERATORS: dict[str, tuple[str, ...]] = {
    "retrack": ("forget_weight", "neighbours", "cap", "t_min"),
    "esd": ("forget_weight", "guidance", "t_min"),
    "erasediff": ("erase_rate", "t_min"),
    "siss": ("forget_weight", "mixture", "superfactor", "t_min"),
    "neggrad": ("forget_weight", "t_min"),
    "finetune": (),
}
# What a setting of None stands for.
OWN: dict[str, dict[str, float]] = {
    "retrack": {"forget_weight": 0.3, "t_min": 0.4},
    "esd": {"forget_weight": 1.0, "t_min": 0.0},
    "erasediff": {"t_min": 0.0},
    "siss": {"forget_weight": 1.0, "t_min": 0.0},
    "neggrad": {"forget_weight": 0.1, "t_min": 0.0},
    "finetune": {},
}
# Settings that came later: they are left out where they change nothing, so that older keys stay.
DEFAULTS: dict[str, Any] = {"params": "full", "guard": False, "density_ratio": False, "t_max": 1.0}
TWO_GRADIENTS = ("erasediff", "siss")
NEED_FULL = ("esd",)  # besides `retain: distill`
GUARD_DRAWS = 2  # (t, noise) an image of the group for guard
GUARD_RETAIN = 256  # images whose mean gradient stands for the rest's


def value(spec: UnlearnSpec, name: str) -> float:
    """A setting as a number: the recipe's, or where that is None the operator's own."""
    given = getattr(spec, name)
    return float(OWN[spec.operator][name] if given is None else given)


def settings(spec: UnlearnSpec) -> dict[str, Any]:
    """The settings that decide what `spec.operator` computes, as they enter an action's key."""
    if spec.operator not in OPERATORS:
        raise RecipeError(unknown("operator", spec.operator, OPERATORS))
    own = OWN[spec.operator]
    names = COMMON + OPERATORS[spec.operator]
    found = {name: value(spec, name) if name in own else getattr(spec, name) for name in names}
    return {"operator": spec.operator, **found, **_later(spec)}


def _later(spec: UnlearnSpec) -> dict[str, Any]:
    """The settings of DEFAULTS that the operator reads and that are not the default."""
    read = ["params"]
    if "t_min" in OPERATORS[spec.operator]:
        read += ["guard", "t_max"]
    if spec.operator == "retrack":
        read.append("density_ratio")
    found = {name: getattr(spec, name) for name in read if getattr(spec, name) != DEFAULTS[name]}
    return found | ({"guard_temperature": spec.guard_temperature} if "guard" in found else {})


def check(spec: UnlearnSpec, unet: Mapping[str, Any], *, conditional: bool = False) -> None:
    """RecipeError for what this operator, or this choice of parameters, cannot do with the full model.

    `unet` is the model's diffusers configuration; `conditional` says whether its images have labels.
    """
    settings(spec)
    has_null = conditional and bool(unet.get("null_class", True))
    if spec.operator == "esd" and not has_null:
        reason = "it is trained with train.class_dropout 0" if conditional else "this model is unconditional"
        raise RecipeError(
            "esd needs a class-conditional full model with a null class",
            why=f"it steers away from the difference between the group's class and no class; {reason}",
            fix="--set model.class_conditional=true with train.class_dropout above 0, then guda train; "
            "or another operator: guda unlearn --all --operator retrack",
        )
    if spec.guard and spec.operator == "finetune":
        raise RecipeError(
            "guard has nothing to weight with finetune",
            why="that operator leaves the group out and forgets nothing on purpose",
            fix="guda unlearn --all --operator retrack --guard",
        )
    if "t_min" in OPERATORS[spec.operator] and value(spec, "t_min") >= spec.t_max:
        raise RecipeError(
            f"unlearn.t_max = {spec.t_max:g} leaves no timestep",
            why=f"{spec.operator} forgets from t_min = {value(spec, 't_min'):g} on",
            fix="--set unlearn.t_min=0",
        )
    _check_params(spec, unet)


def _check_params(spec: UnlearnSpec, unet: Mapping[str, Any]) -> None:
    kind = subset_of(spec.params)[0]
    if kind == "lora" and importlib.util.find_spec("peft") is None:
        raise RecipeError(
            f"unlearn.params: {spec.params} needs the package peft", fix="pip install 'guda[lora]'"
        )
    blocks = [*unet.get("down_block_types", ()), *unet.get("up_block_types", ())]
    attention = any("Attn" in block for block in blocks) or bool(unet.get("add_attention", True))
    if kind == "attn" and not attention:
        raise RecipeError(
            "unlearn.params: attn needs a model with attention",
            why=f"this one has {', '.join(sorted(set(blocks)))} and no attention in the middle",
            fix="a model with AttnDownBlock2D and AttnUpBlock2D or model.add_attention has some; "
            "--params full or lora:4 work with any",
        )
    if kind == "cross-attn-kv" and not unet.get("cross_attention_dim"):
        raise RecipeError(
            "unlearn.params: cross-attn-kv needs a model with cross-attention",
            why="this one has none: cross-attention reads a text, and a UNet2DModel takes no text",
            fix="--params attn (where the model has attention), lora:4 or full",
        )


def forwards(spec: UnlearnSpec, forget: int = 0, images: int = 1) -> float:
    """Forward-equivalents of one run (a backward counts 2) that forgets `forget` of `images` images.

    Operators with two gradients go back twice; esd asks the full model twice about the group's share
    of the entries; guard takes one gradient for each of its draws.
    """
    entry = 5.0 if spec.operator in TWO_GRADIENTS else 3.0
    if spec.retain == "distill":
        entry += 1.0
    if spec.operator == "esd":
        entry += 2.0 * forget / images
    once = 3.0 * (GUARD_DRAWS * forget + min(GUARD_RETAIN, images - forget)) if spec.guard else 0.0
    return float(spec.steps * spec.batch_size) * entry + once
