"""What the numbers of a recipe ask of memory at the least, and whether this machine has that. No torch.

Every estimate is a lower bound, of what certainly is there at once: what is refused could not have been done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from guda_cli import memory
from guda_cli.errors import RecipeError
from guda_cli.families.known import family_of
from guda_cli.phrases import human_bytes
from guda_cli.sections import Recipe, subset_of

_TRAINED = 16  # bytes a weight: itself, its gradient, two moments of Adam
_FLOAT = 4
_TIMESTEP = 32  # bytes: signal, noise, and their shares, in double precision
_REMOVAL = 512  # bytes of what is known of one random set
_GPU = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Need:
    """One thing that has to be in memory."""

    key: str
    """The entry of the recipe that decides it."""
    value: object
    what: str
    bytes: int


def check(recipe: Recipe) -> None:
    """RecipeError, with the estimate, where the recipe asks for more memory than the machine has."""
    has = memory.total()
    needs = list(estimate(recipe))
    asked = sum(need.bytes for need in needs)
    if has is None or asked <= has:
        return
    most = max(needs, key=lambda need: need.bytes)
    at_least = human_bytes(min(asked, memory.BEYOND))
    raise RecipeError(
        f"this recipe asks for {at_least} of memory or more, and this machine has {human_bytes(has)}",
        why=f"{most.key} = {_shown(most.value)}: {most.what} {human_bytes(min(most.bytes, memory.BEYOND))}",
        fix=f"--set {most.key}={_shown(_default(most.key), plain=True)}",
    )


def check_images(recipe: Recipe, count: int) -> None:
    """UsageError, with the estimate, where so many drawn images do not fit: twice, as they are joined."""
    size = 2 * recipe.data.channels * recipe.data.size**2
    memory.check(count * size, f"{count:,} drawn images", fix="-n 16")


def estimate(recipe: Recipe) -> Iterator[Need]:
    """What is in memory at once while the recipe's network is trained, at the least."""
    size, text = recipe.data.size, recipe.text
    yield Need("data.size", size, "one image takes", recipe.data.channels * size**2)
    schedule = recipe.diffusion.num_train_timesteps
    yield Need("diffusion.num_train_timesteps", schedule, "the noise schedule takes", schedule * _TIMESTEP)
    nulls = recipe.unlearn.null_groups
    yield Need("unlearn.null_groups", nulls, "the random sets take", nulls * _REMOVAL)
    features = recipe.attribution.projection
    yield Need("attribution.projection", features, "the features' moments take", features**2 * _FLOAT)
    family = family_of(recipe)
    if recipe.model.base or recipe.model.registered:
        return  # the networks are others' than the recipe's
    if family.latent:
        yield _weights("latent", recipe.latent.block_out_channels, recipe.latent.layers_per_block)
        size >>= len(recipe.latent.block_out_channels) - 1
    if family.prompts:
        wide = text.hidden_size
        words = (text.vocabulary * wide + text.layers * 12 * wide**2) * _TRAINED
        yield Need("text.hidden_size", wide, "the text encoder takes", words)
    yield _weights("model", recipe.model.block_out_channels, recipe.model.layers_per_block)
    yield from _adapters(recipe)
    if not _GPU.exists():
        yield _batch(recipe, size)


def _weights(section: str, widths: Sequence[int], layers: int) -> Need:
    """Weights in training of two 3 x 3 convolutions in each layer, on the way down and on the way up."""
    count = sum(2 * layers * 2 * 9 * width**2 for width in widths)
    if widths and layers > max(widths):
        return Need(f"{section}.layers_per_block", layers, "a network of as many takes", count * _TRAINED)
    key = f"{section}.block_out_channels"
    return Need(key, list(widths), "a network as wide takes", count * _TRAINED)


def _adapters(recipe: Recipe) -> Iterator[Need]:
    """What a low-rank update of one square matrix as wide as the first level takes in training."""
    for section, params in (("train", recipe.train.params), ("unlearn", recipe.unlearn.params)):
        kind, rank = subset_of(params, f"{section}.params")
        if kind == "lora" and recipe.model.block_out_channels:
            size = 2 * rank * recipe.model.block_out_channels[0] * _TRAINED
            yield Need(f"{section}.params", params, "an update of this rank takes", size)


def _batch(recipe: Recipe, side: int) -> Need:
    """What a part of a batch leaves for the backward pass: the inputs of the first level's convolutions."""
    train, model = recipe.train, recipe.model
    section = max(("train", "unlearn"), key=lambda name: int(getattr(recipe, name).batch_size))
    batch = int(getattr(recipe, section).batch_size)
    rows = -(-batch // train.gradient_accumulation)
    maps = 1 if train.gradient_checkpointing else 4 * model.layers_per_block
    width = model.block_out_channels[0] if model.block_out_channels else 0
    size = rows * maps * width * side**2 * (_FLOAT if train.mixed_precision == "no" else _FLOAT // 2)
    numbers = {  # each with how much of the size it makes, compared with the default
        f"{section}.batch_size": (batch, batch / 128),
        "data.size": (recipe.data.size, (recipe.data.size / 32) ** 2 if side < 1 << 40 else memory.BEYOND),
        "model.layers_per_block": (model.layers_per_block, model.layers_per_block),
    }
    key = max(numbers, key=lambda name: numbers[name][1])
    return Need(key, numbers[key][0], "the feature maps of a batch take", size)


def _default(key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(Recipe(), section), name)


def _shown(value: object, *, plain: bool = False) -> str:
    """A number or list as messages have it, `plain` as a command has it."""
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_shown(item, plain=plain) for item in value[:8]) + "]"
    if isinstance(value, int) and not plain:
        return f"{value:,}" if value < memory.BEYOND else f"a number of {value.bit_length()} bits"
    return str(value)
