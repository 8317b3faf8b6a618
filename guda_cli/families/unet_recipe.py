"""What a recipe's `model` section must say where the network is a U-Net of diffusers."""

from __future__ import annotations

from guda_cli.errors import RecipeError
from guda_cli.sections import Recipe


def check_blocks(recipe: Recipe, side: int, of: str) -> None:
    """RecipeError unless a U-Net of these blocks exists and takes inputs of `side`, called `of`."""
    m = recipe.model
    levels = len(m.block_out_channels)
    if not levels == len(m.down_block_types) == len(m.up_block_types):
        raise RecipeError(
            "model.block_out_channels, down_block_types and up_block_types must be equally long",
            why=f"they have {levels}, {len(m.down_block_types)} and {len(m.up_block_types)} entries",
        )
    for width in m.block_out_channels:
        if width % m.norm_num_groups:
            raise RecipeError(f"model.norm_num_groups = {m.norm_num_groups} does not divide {width} channels")
    if side % 2 ** (levels - 1):
        raise RecipeError(
            f"{of} = {side} cannot be halved {levels - 1} times",
            why=f"the model has {levels} levels", fix="choose another size or fewer levels",
        )  # fmt: skip
