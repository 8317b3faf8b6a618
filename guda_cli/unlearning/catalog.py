"""The operators by name, the settings each one reads, and what it needs of a model; imports no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from typing import Any

from guda_cli.errors import RecipeError, unknown
from guda_cli.sections import UnlearnSpec, subset_of

COMMON = ("steps", "batch_size", "lr", "retain", "seed")
OPERATORS: dict[str, tuple[str, ...]] = {
    "retrack": ("forget_weight", "neighbours", "cap", "t_min"),
    "esd": ("forget_weight", "guidance", "t_min"),
    "erasediff": ("erase_rate", "t_min"),
    "siss": ("forget_weight", "mixture", "superfactor", "t_min"),
    "neggrad": ("forget_weight", "t_min"),
    "finetune": (),
    "anchor:awss": ("forget_weight", "t_min", "beta", "eta", "anchor_descriptors", "anchor_encoder"),
    "anchor:uniform": ("forget_weight", "t_min", "anchor_descriptors"),
    "anchor:style-removed": ("forget_weight", "t_min"),
    # where an image has no partner, awss stands in
    "anchor:matched": ("forget_weight", "t_min", "beta", "eta", "anchor_descriptors", "anchor_encoder"),
}
# What a setting of None stands for.
OWN: dict[str, dict[str, float]] = {
    "retrack": {"forget_weight": 0.3, "t_min": 0.2},
    "esd": {"forget_weight": 1.0, "t_min": 0.0},
    "erasediff": {"t_min": 0.0},
    "siss": {"forget_weight": 1.0, "t_min": 0.0},
    "neggrad": {"forget_weight": 0.1, "t_min": 0.0},
    "finetune": {},
    "anchor:awss": {"forget_weight": 1.0, "t_min": 0.0},
    "anchor:uniform": {"forget_weight": 1.0, "t_min": 0.0},
    "anchor:style-removed": {"forget_weight": 1.0, "t_min": 0.0},
    "anchor:matched": {"forget_weight": 1.0, "t_min": 0.0},
}
# Settings that came later: they are left out where they change nothing, so that older keys stay.
DEFAULTS: dict[str, Any] = {
    "params": "full",
    "guard": False,
    "density_ratio": False,
    "t_max": 1.0,
    "forget_share": None,
}
TWO_GRADIENTS = ("erasediff", "siss")
ANCHORS = ("anchor:awss", "anchor:uniform", "anchor:style-removed", "anchor:matched")
NATURAL = ("finetune", "siss")  # leave the group out, or weigh its share of the data: no forget_share
NEED_STYLES = ("anchor:awss", "anchor:uniform")  # style descriptors of another group
NEED_FULL = ("esd", *ANCHORS)  # besides `retain: distill`
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
    if spec.operator not in NATURAL:
        read.append("forget_share")
    if spec.operator == "retrack":
        read.append("density_ratio")
    found = {name: getattr(spec, name) for name in read if getattr(spec, name) != DEFAULTS[name]}
    return found | ({"guard_temperature": spec.guard_temperature} if "guard" in found else {})


def check(
    spec: UnlearnSpec,
    unet: Mapping[str, Any],
    *,
    conditional: bool = False,
    text: bool = False,
    styles: Mapping[str, tuple[str, ...]] | None = None,
    removed: Collection[str] = (),
) -> None:
    """RecipeError for what this operator, or this choice of parameters, cannot do with the full model.

    `unet` is the model's diffusers configuration; `conditional` says whether its images have labels, `text`
    whether they have prompts. `styles` are the style descriptors of all groups, where they are known, and
    `removed` the groups that go.
    """
    settings(spec)
    _check_conditions(spec, unet, conditional, text)
    if spec.operator in NEED_STYLES and styles is not None:
        retained_styles(styles, removed)
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
    check_params(spec.params, unet, text)


def check_parts(spec: UnlearnSpec, parts: int) -> None:
    """RecipeError where a step's loss is no sum over entries that `parts`, or processes, could share."""
    if parts == 1:
        return
    if spec.operator in TWO_GRADIENTS:
        why = f"{spec.operator} weighs two gradients of the whole batch against each other"
    elif spec.operator == "retrack" and spec.density_ratio:
        why = "unlearn.density_ratio is relative to the whole batch"
    else:
        return
    raise RecipeError(
        "this unlearning does not go with train.gradient_accumulation or with several processes",
        why=why,
        fix="--operator retrack and --set unlearn.density_ratio=false; or one process, with a full model "
        "that is trained without gradient_accumulation",
    )


def _check_conditions(spec: UnlearnSpec, unet: Mapping[str, Any], conditional: bool, text: bool) -> None:
    if spec.operator in ANCHORS and not text:
        raise RecipeError(
            f"{spec.operator} needs a text-conditional full model",
            why="it redirects the group's prompts to others, and this model reads none",
            fix="a recipe with model.text_conditional: true (guda recipes ls); or another operator: "
            "guda unlearn --all --operator retrack",
        )
    conditional = conditional or text
    if spec.operator == "esd" and not (conditional and unet.get("null_class", True)):
        dropout = "train.prompt_dropout" if text else "train.class_dropout"
        reason = f"it is trained with {dropout} 0" if conditional else "this model is unconditional"
        wanted = "" if text else "--set model.class_conditional=true with "
        raise RecipeError(
            "esd needs a text-conditional full model, or a class-conditional one with a null class",
            why=f"it steers away from what the group's prompt or class changes against none; {reason}",
            fix=f"{wanted}{dropout} above 0, then guda train; or another operator: "
            "guda unlearn --all --operator retrack",
        )


def retained_styles(styles: Mapping[str, tuple[str, ...]], removed: Collection[str]) -> tuple[str, ...]:
    """The groups that can lend their style when `removed` are gone; RecipeError when there is none.

    `styles` are each group's descriptors.
    """
    found = tuple(name for name, words in styles.items() if words and name not in removed)
    if not any(styles.values()):
        raise RecipeError(
            "no group has style descriptors, of which anchor prompts are made",
            why="text.pattern finds a style part in no prompt, and neither a file nor the metadata name any",
            fix="--set text.descriptors=styles.json (group -> its descriptors), data.descriptors=COLUMN of "
            "the metadata or another text.pattern; or --operator anchor:style-removed",
        )
    if not found:
        raise RecipeError(
            "no style is left to redirect to",
            why=f"without {', '.join(sorted(removed))} there is no other group with style descriptors",
            fix="remove fewer groups at once; or --operator anchor:style-removed, which needs no other style",
        )
    return found


def check_params(params: str, unet: Mapping[str, Any], text: bool, where: str = "unlearn.params") -> None:
    """RecipeError where `params`, the value of `where`, are none that this network has."""
    kind = subset_of(params, where)[0]
    if kind == "lora" and importlib.util.find_spec("peft") is None:
        raise RecipeError(f"{where}: {params} needs the package peft", fix="pip install 'guda[lora]'")
    blocks = [*unet.get("down_block_types", ()), *unet.get("up_block_types", ())]
    attention = text or any("Attn" in block for block in blocks) or bool(unet.get("add_attention", True))
    if kind == "attn" and not attention:
        raise RecipeError(
            f"{where}: attn needs a model with attention",
            why=f"this one has {', '.join(sorted(set(blocks)))} and no attention in the middle",
            fix="a model with AttnDownBlock2D and AttnUpBlock2D or model.add_attention has some; "
            "--params full or lora:4 work with any",
        )
    if kind == "cross-attn-kv" and not text and not unet.get("cross_attention_dim"):
        raise RecipeError(
            f"{where}: cross-attn-kv needs a model with cross-attention",
            why="this one has none: cross-attention reads a text, and a UNet2DModel takes no text",
            fix="--params attn (where the model has attention), lora:4 or full",
        )


def dose(spec: UnlearnSpec) -> int:
    """How many entries of a batch `forget_share` is, one at least and not all; 0 where it does not count."""
    if spec.forget_share is None or spec.operator in NATURAL:
        return 0
    return min(max(1, round(spec.forget_share * spec.batch_size)), spec.batch_size - 1)


def forwards(spec: UnlearnSpec, forget: int = 0, images: int = 1) -> float:
    """Forward-equivalents of one run (a backward counts 2) that forgets `forget` of `images` images.

    Operators with two gradients go back twice; esd asks the full model twice, anchors once, about the group's
    share of the entries; guard takes one gradient for each of its draws.
    """
    share = forget / images
    given = dose(spec) / spec.batch_size
    share = given + (1.0 - given) * share
    entry = 5.0 if spec.operator in TWO_GRADIENTS else 3.0
    if spec.retain == "distill":
        entry += 1.0
    if spec.operator == "esd":
        entry += 2.0 * share
    elif spec.operator in ANCHORS:
        entry += share
    once = 3.0 * (GUARD_DRAWS * forget + min(GUARD_RETAIN, images - forget)) if spec.guard else 0.0
    return float(spec.steps * spec.batch_size) * entry + once
