"""Building networks of diffusers, and weights as safetensors or as a delta against a base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from guda_cli import plugins
from guda_cli.diffusion.noise import seed_of
from guda_cli.errors import DataError

Weights = dict[str, Tensor]


def build(where: str, config: Mapping[str, Any], seed: int) -> torch.nn.Module:
    """A network of the diffusers class at `where` ("module:Class") and configuration, weights from `seed`.

    `null_class`, which is ours and not diffusers', is kept in the network's configuration for its adapter.
    DataError where diffusers cannot build it.
    """
    made_of = plugins.at(where)
    torch.manual_seed(seed_of("guda.init/1", seed))
    try:
        model = made_of.from_config({k: v for k, v in config.items() if k != "null_class"})
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as err:
        why = str(err) or type(err).__name__
        raise DataError(f"diffusers cannot build this {made_of.__name__}", why=why) from None
    if "null_class" in config:
        model.register_to_config(null_class=bool(config["null_class"]))
    network: torch.nn.Module = model
    return network


def sharing(make: Callable[[], torch.nn.Module], weights: Weights) -> torch.nn.Module:
    """The network that `make` builds with the tensors of `weights` themselves, in evaluation mode and frozen.

    Nothing is drawn or copied, so that a large network is in memory once. ValueError when they do not fit.
    """
    with torch.device("meta"):
        network = make()
    if _unstored(network):
        with _without_parameters():  # what is not stored must be computed
            network = make()
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as err:
        raise ValueError(str(err)) from None
    return network.eval().requires_grad_(False)


def _unstored(network: torch.nn.Module) -> bool:
    """Whether a network has buffers or other tensors that no weights fill."""
    named = dict(chain(network.named_parameters(), network.named_buffers()))
    others = (value for module in network.modules() for value in vars(module).values())
    return network.state_dict().keys() != named.keys() or any(isinstance(one, Tensor) for one in others)


@contextmanager
def _without_parameters() -> Iterator[None]:
    """Meanwhile the parameters of new modules are on the meta device, where nothing is drawn."""
    register = torch.nn.Module.register_parameter

    def bare(self: torch.nn.Module, name: str, value: torch.nn.Parameter | None) -> None:
        moved = value if value is None else torch.nn.Parameter(value.to("meta"), value.requires_grad)
        register(self, name, moved)

    torch.nn.Module.register_parameter = bare  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]


def moved(network: torch.nn.Module, device: torch.device | str) -> torch.nn.Module:
    """`network` itself, its weights on `device`.

    What diffusers' own `to` does for networks that are neither quantised nor offloaded, but to learn whether
    they are it imports modules for a second.
    """
    return torch.nn.Module.to(network, device=device)


Owners = dict[str, tuple[torch.nn.Module, str]]
"""Of each weight of a network: the module that has it, and the name it has there."""


def owners(network: torch.nn.Module) -> Owners:
    """Where the weights of `network` are kept."""
    found = {}
    for name in network.state_dict():
        module, _, own = name.rpartition(".")
        found[name] = network.get_submodule(module), own
    return found


def place(where: Owners, weights: Weights) -> None:
    """Put these tensors themselves into a frozen network, as `load_state_dict(assign=True)` would.

    That takes ten times as long: it visits every module. ValueError where one does not fit.
    """
    for name, value in weights.items():
        module, own = where[name]
        before = getattr(module, own)
        if before.shape != value.shape:
            raise ValueError(f"{name} is {list(value.shape)}, not {list(before.shape)}")
        is_parameter = isinstance(before, torch.nn.Parameter)
        setattr(module, own, torch.nn.Parameter(value, requires_grad=False) if is_parameter else value)


def to_bytes(weights: Weights) -> bytes:
    """Weights as safetensors with no metadata, so that equal weights are equal bytes."""
    return bytes(save({name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}))


def from_bytes(data: bytes) -> Weights:
    """The inverse of `to_bytes`."""
    return dict(load(data))


def delta(weights: Weights, base: Weights) -> Weights:
    """The tensors of `weights` that differ from `base` in any bit."""
    return {
        name: value for name, value in weights.items() if not torch.equal(_bits(value), _bits(base[name]))
    }


def _bits(value: Tensor) -> Tensor:
    return value.reshape(-1).view(torch.uint8)  # 0.0 and -0.0 are equal, their bytes are not


def check_finite(weights: Weights, what: str) -> None:
    """DataError naming the first tensor of `weights` with a NaN or infinity."""
    for name, value in weights.items():
        if value.is_floating_point() and not _finite(value):
            raise DataError(
                f"{what} has NaN or infinite weights",
                why=f"in tensor '{name}'",
                fix="use an undamaged checkpoint",
            )


def _finite(value: Tensor) -> bool:
    """Whether all of `value` is finite: a NaN or an infinity is its least or its greatest."""
    return not value.numel() or all(bool(torch.isfinite(end)) for end in torch.aminmax(value))
