"""Entries of a model's configuration that are read here: what they may be, and how deep a network they make.

A file's JSON may hold anything. What diffusers and transformers read themselves they check themselves. No
torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from guda_cli.errors import DataError

DEEPEST = 1000
"""Blocks times layers of a network that is built at all; Stable Diffusion XL has 60."""
LONGEST = 100_000
"""Diffusion steps of a noise schedule; models have 1,000 to 4,000."""


_DEPTHS = ("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers", "depth", "depths")


def _whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number, no truth value, within what a float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _wholes(value: Any) -> bool:
    """A whole number, or lists of such, at any depth; some may be 0."""
    return all(_wholes(one) for one in value) if isinstance(value, list) and value else _whole(value, 0)


def _widths(value: Any) -> bool:
    return isinstance(value, list) and all(map(_whole, value))


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _betas(value: Any) -> bool:
    return isinstance(value, list) and 2 <= len(value) <= LONGEST and all(map(is_number, value))


# What else than null an entry may be, by its name in any configuration.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        (
            "in_channels", "out_channels", "latent_channels", "num_class_embeds", "hidden_size", "vocab_size",
            "max_position_embeddings", "num_hidden_layers", "num_attention_heads", "norm_num_groups",
        ),
        (_whole, "a whole number"),
    ),
    **dict.fromkeys(
        (
            "sample_size", "cross_attention_dim", "layers_per_block", "transformer_layers_per_block",
            "reverse_transformer_layers_per_block", "attention_head_dim",
        ),
        (_wholes, "a whole number, or a list of them"),
    ),
    "block_out_channels": (_widths, "a list of whole numbers"),
    **dict.fromkeys(("down_block_types", "up_block_types", "architectures"), (_names, "a list of names")),
    **dict.fromkeys(("beta_start", "beta_end"), (is_number, "a number")),
    "num_train_timesteps": (
        lambda value: _whole(value, 2) and value <= LONGEST, f"a whole number from 2 to {LONGEST:,}",
    ),
    "trained_betas": (_betas, f"a list of 2 to {LONGEST:,} numbers"),
    **dict.fromkeys(("rescale_betas_zero_snr", "null_class", "add_attention"), (_flag, "true or false")),
    **dict.fromkeys(
        ("beta_schedule", "prediction_type", "model_type", "time_embedding_type"), (_text, "a name")
    ),
}  # fmt: skip


def check_fields(config: Mapping[str, Any], where: str) -> None:
    """DataError naming an entry of `config` that is of another kind than it is everywhere else."""
    for key, value in config.items():
        if value is not None and key in _KINDS and not _KINDS[key][0](value):
            raise DataError(f"{where}: {key} is {value!r:.60}", why=f"it has to be {_KINDS[key][1]}")


def check_depth(config: Mapping[str, Any], tensors: int, where: str) -> None:
    """DataError where `config` asks for more layers than a file of that many `tensors` can fill.

    A network of more would take minutes to be built, only to be refused.
    """
    widths = config.get("block_out_channels")
    blocks = len(widths) if isinstance(widths, list) else 1
    layers = math.prod(_most(config.get(key)) for key in ("layers_per_block", "transformer_layers_per_block"))
    depth = max(
        blocks * layers,
        _most(config.get("reverse_transformer_layers_per_block")),
        *(_most(config.get(key)) for key in _DEPTHS),
    )
    if depth > min(max(tensors, 1), DEEPEST):
        raise DataError(
            f"{where}: the weights do not fit config.json",
            why=f"it asks for {depth:,} layers, the weights are {tensors:,} tensors",
        )


def _most(value: Any) -> int:
    """The highest whole number in `value`, a number or lists of such; 1 where there is none."""
    if isinstance(value, list):
        return max(map(_most, value), default=1)
    return value if _whole(value) else 1
