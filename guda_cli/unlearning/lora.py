"""Low-rank updates of a network's attention and convolutions (Hu et al. 2022), trained by `peft`.

What is stored are the factors: `<module>.lora_A.weight` and `<module>.lora_B.weight`, as peft itself names
them. Their product is added to the weight with scale 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from guda_cli.diffusion.networks import Weights
from guda_cli.diffusion.noise import seed_of
from guda_cli.diffusion.weight_file import Changes
from guda_cli.errors import DataError

ADAPTER = "default"  # peft's name of the only adapter
A, B = ".lora_A", ".lora_B"


def attends(module: torch.nn.Module) -> bool:
    """Whether it is one of diffusers' attention layers: `Attention`, or a kind of model's own, as FLUX's."""
    return type(module).__name__.endswith("Attention")


def targets(network: torch.nn.Module) -> list[str]:
    """Names of all convolutions, of the linear layers of attention and of those that lead into and out of it.

    At rank 4 that is 0.4 % of the 860 million parameters of Stable Diffusion 1.5, attention alone 0.1 %.
    """
    inside = tuple(f"{name}." for name, module in network.named_modules() if attends(module))
    around = {
        f"{name}.{end}"
        for name, module in network.named_modules()
        if type(module).__name__ == "Transformer2DModel"
        for end in ("proj_in", "proj_out")
    }
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d)
        or (isinstance(module, torch.nn.Linear) and (name.startswith(inside) or name in around))
    ]


def inject(network: torch.nn.Module, rank: int, seed: int) -> None:
    """Put trainable factors of that rank into `network`, in place, and freeze all else.

    B starts at zero and A is drawn from `seed`: the network says what it said before.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets(network))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("guda.lora/1", seed))
        inject_adapter_in_model(config, network, adapter_name=ADAPTER)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(A in name or B in name)


def factors(weights: Weights) -> Weights:
    """The factors among an injected network's `weights`, under the names they are stored by."""
    return {
        name.replace(f".{ADAPTER}.", "."): value for name, value in weights.items() if A in name or B in name
    }


def changes(base: Weights, stored: Weights) -> Changes:
    """W + B A for each weight W of `base` that has `stored` factors, each made when it is asked for.

    Worked out where W lies. DataError where they do not fit.
    """
    out: dict[str, Callable[[], Tensor]] = {}
    for name, low in stored.items():
        if not name.endswith(A + ".weight"):
            continue
        module = name.removesuffix(A + ".weight")
        high, weight = stored.get(f"{module}{B}.weight"), base.get(f"{module}.weight")
        if high is None or weight is None:
            raise DataError(f"the low-rank update of '{module}' does not belong to this model")
        out[f"{module}.weight"] = partial(_updated, weight, high, low)
    return Changes(out)


def _updated(weight: Tensor, high: Tensor, low: Tensor) -> Tensor:
    product = _product(high.to(weight.device), low.to(weight.device))
    return weight + product.to(weight.dtype)


def _product(high: Tensor, low: Tensor) -> Tensor:
    """B A as a weight: [o, r] [r, i] of a linear layer, [o, r, 1, 1] [r, i, h, w] of a convolution."""
    flat = high.flatten(1) @ low.flatten(1)
    return flat.view(high.shape[0], *low.shape[1:])
