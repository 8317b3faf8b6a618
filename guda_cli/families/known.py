"""Every family by name, and which one a recipe or a stored model is of. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guda_cli.errors import RecipeError, unknown
from guda_cli.families.family import Family
from guda_cli.families.pixels import Pixels
from guda_cli.families.stable_diffusion import StableDiffusion
from guda_cli.sections import Recipe

FAMILIES: dict[str, Family] = {family.name: family for family in (Pixels(), StableDiffusion())}


def family_of(recipe: Recipe) -> Family:
    """The kind of model that `recipe` is about: as it says, else by whether it reads prompts.

    RecipeError naming the nearest for an unknown one.
    """
    name = recipe.model.family or (StableDiffusion.name if recipe.model.text_conditional else Pixels.name)
    if name not in FAMILIES:
        raise RecipeError(
            f"model.family: {unknown('family', name, FAMILIES)}", why="it is one of " + ", ".join(FAMILIES)
        )
    return FAMILIES[name]


def family_of_config(config: Mapping[str, Any]) -> Family:
    """The kind of a stored model; configurations of 0.1.0 do not name it and are told by their parts."""
    named = config.get("family")
    return FAMILIES[named or (StableDiffusion.name if "parts" in config else Pixels.name)]
