"""Every family by name, and which one a recipe or a stored model is of. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from guda_cli.errors import GudaError, RecipeError, unknown
from guda_cli.families.dit import DiT
from guda_cli.families.family import Family
from guda_cli.families.flux import Flux
from guda_cli.families.pixels import Pixels
from guda_cli.families.qwen_image import QwenImage
from guda_cli.families.sd3 import StableDiffusion3
from guda_cli.families.sdxl import StableDiffusionXL
from guda_cli.families.stable_diffusion import StableDiffusion
from guda_cli.families.z_image import ZImage
from guda_cli.sections import Recipe

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Pixels(),
        StableDiffusion(),
        StableDiffusionXL(),
        StableDiffusion3(),
        Flux(),
        ZImage(),
        QwenImage(),
        DiT(),
    )
}
UNNAMED = (Pixels.name, StableDiffusion.name)
"""Those of 0.1.0, whose stored configurations do not name them: they are told apart by their parts."""


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
    """The kind of a stored model; RecipeError for one that a later version of this program made."""
    name = config.get("family") or (StableDiffusion.name if "parts" in config else Pixels.name)
    if name not in FAMILIES:
        raise RecipeError(
            f"the stored model is of the family '{name}'",
            why="this version knows " + ", ".join(FAMILIES),
            fix="pip install --upgrade guda",
        )
    return FAMILIES[name]


def family_at(places: Iterable[str]) -> Family | None:
    """The kind of the pipeline in the first of `places` (folders, files, hub ids) that names a known one.

    Of a hub's model only the index is fetched. None where no place says it.
    """
    for place in places:
        name = _pipeline_class(place)
        for family in FAMILIES.values():
            if name in family.pipelines:
                return family
    return None


def _pipeline_class(place: str) -> str | None:
    from guda_cli.checkpoints.files import INDEX, download, is_hub_id, model_folder, read_json

    folder = Path(place).expanduser()
    try:
        if folder.is_dir():
            folder = model_folder(folder)
        elif not folder.exists() and is_hub_id(place):
            folder = download(place, (INDEX,), "")
        found = read_json(folder / INDEX).get("_class_name")
    except GudaError:  # told where the model is read
        return None
    return found if isinstance(found, str) else None


def named(family: Family, config: dict[str, Any]) -> dict[str, Any]:
    """`config` as it is stored: so that `family_of_config` finds `family` again."""
    return config if family.name in UNNAMED else {"family": family.name, **config}
