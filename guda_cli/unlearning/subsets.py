"""Which parameters unlearning trains, and what is stored of them (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights
from guda_cli.sections import subset_of
from guda_cli.unlearning import lora


def prepare(network: torch.nn.Module, params: str, seed: int) -> None:
    """Make exactly the parameters of `params` (full, attn, cross-attn-kv, lora:R) trainable, in place.

    ValueError when the network has none; `catalog.check` says so to users beforehand.
    """
    kind, rank = subset_of(params)
    if kind == "full":
        return
    if kind == "lora":
        lora.inject(network, rank, seed)
        return
    chosen = _attention(network, kind)
    if not chosen:
        raise ValueError(f"the network has no parameters for {params}")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen)


def _attention(network: torch.nn.Module, kind: str) -> set[str]:
    """Names of the parameters of attention, or of the keys and values of cross-attention."""
    out = set()
    for module_name, module in network.named_modules():
        if not lora.attends(module):
            continue
        crossing = bool(getattr(module, "is_cross_attention", False))
        for name, _ in module.named_parameters():
            if kind == "attn" or (crossing and name.split(".")[0] in ("to_k", "to_v")):
                out.add(f"{module_name}.{name}")
    return out


def stored(trained: Weights, base: Weights, params: str) -> Weights:
    """What to keep of a run's `trained` weights: low-rank factors, or the tensors that differ from `base`."""
    if subset_of(params)[0] == "lora":
        return lora.factors(trained)
    return networks.delta(trained, base)


def changes(base: Weights, kept: Weights) -> Mapping[str, Tensor]:
    """The weights of an unlearned model that differ from the full model's, from what `stored` kept."""
    return lora.changes(base, kept) if any(lora.A in name for name in kept) else kept


def merge(base: Weights, kept: Weights) -> Weights:
    """All weights of an unlearned model from the full model's and what `stored` kept."""
    return {**base, **changes(base, kept)}
