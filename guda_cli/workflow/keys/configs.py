"""The diffusers configurations of a recipe's network and noise schedule. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from guda_cli.checkpoints.components import scale_factor
from guda_cli.sections import Recipe, to_dict

TEXT_CLASS = "UNet2DConditionModel"
_OURS = ("base", "registered", "text_conditional", "class_conditional")  # no fields of a diffusers class


def configs(recipe: Recipe, shape: tuple[int, int, int], groups: Iterable[str] = ()) -> dict[str, Any]:
    """Configurations `unet` and `scheduler` for images of `shape`, and `classes`.

    A class-conditional one has a class a group, in sorted order, and the null class last; `null_class`
    is false where training never shows an image without its class or prompt.
    """
    if recipe.model.text_conditional:
        return _text_configs(recipe, shape)
    unet = _network(recipe) | {"sample_size": shape[1], "in_channels": shape[0], "out_channels": shape[0]}
    scheduler = {**to_dict(recipe.diffusion), "clip_sample": True, "variance_type": "fixed_small"}
    if not recipe.model.class_conditional:
        return {"unet": unet, "scheduler": scheduler}
    classes = sorted(groups)
    unet["num_class_embeds"] = len(classes) + 1
    if recipe.train.class_dropout == 0:
        unet["null_class"] = False
    return {"unet": unet, "scheduler": scheduler, "classes": classes}


def _network(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in to_dict(recipe.model).items() if name not in _OURS}


def _text_configs(recipe: Recipe, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Those of a latent text-to-image model with the VAE and text encoder of the recipe."""
    unet = _network(recipe)
    unet.pop("add_attention")  # its middle block always has some
    channels = recipe.latent.latent_channels
    unet |= {
        "_class_name": TEXT_CLASS,
        "sample_size": shape[1] // scale_factor({"block_out_channels": recipe.latent.block_out_channels}),
        "in_channels": channels,
        "out_channels": channels,
        "cross_attention_dim": recipe.text.hidden_size,
    }
    if recipe.train.prompt_dropout == 0:
        unet["null_class"] = False
    scheduler = {**to_dict(recipe.diffusion), "clip_sample": False, "steps_offset": 1}
    return {"unet": unet, "scheduler": scheduler}
