"""The operators by name and the settings each one reads; imports no torch."""

from __future__ import annotations

from typing import Any

from guda_cli.errors import RecipeError, unknown
from guda_cli.recipe import UnlearnSpec

COMMON = ("steps", "batch_size", "lr", "retain", "seed")
OPERATORS: dict[str, tuple[str, ...]] = {
    "retrack": ("forget_weight", "neighbours", "cap", "t_min"),
    "finetune": (),
}


def settings(spec: UnlearnSpec) -> dict[str, Any]:
    """The settings that decide what `spec.operator` computes, as they enter an action's key."""
    if spec.operator not in OPERATORS:
        raise RecipeError(unknown("operator", spec.operator, OPERATORS))
    names = COMMON + OPERATORS[spec.operator]
    return {"operator": spec.operator, **{name: getattr(spec, name) for name in names}}


def forwards(spec: UnlearnSpec) -> float:
    """Forward-equivalents of one unlearning run (a backward counts 2)."""
    return float(spec.steps * spec.batch_size * (4 if spec.retain == "distill" else 3))
