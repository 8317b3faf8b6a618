"""Gradients of linear layers and convolutions, sample by sample, from one backward of a whole batch.

The gradient of a sample's value by a layer's weight is a sum over its places of (gradient by the layer's
output) x (input there), Goodfellow 2015; a convolution is a linear layer on the patches of its input (Grosse
& Martens 2016). So a plain backward of the batch gives all samples' gradients, and both factors of K-FAC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True, eq=False)
class LayerGradients:
    """A layer's `inputs` [B, L, n] at L places and the gradients by its `outputs` [B, L, m] there.

    n counts the weight's columns and, where there is a bias, a last one of ones.
    """

    inputs: Tensor
    outputs: Tensor

    def each(self) -> Tensor:
        """The gradient by the weight (bias last) of each sample: [B, m, n]."""
        return self.outputs.mT @ self.inputs


def layers_of(
    network: nn.Module, keep: Callable[[str], bool] = lambda name: True
) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers whose weight, by its name in `network`, `keep` accepts, in the network's order.

    Convolutions in groups, or padded with anything but zeros, are left out.
    """
    return {
        name: module
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and _plain(module)))
        and keep(f"{name}.weight")
    }


def parameters_of(layers: dict[str, nn.Linear | nn.Conv2d]) -> int:
    """How many numbers their weights and biases are."""
    return sum(value.numel() for layer in layers.values() for value in layer.parameters(recurse=False))


@dataclass
class Taps:
    """Listens to `layers` while it is entered; see `gradients`. Leaves the network as it was."""

    layers: dict[str, nn.Linear | nn.Conv2d]
    _heard: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    _hooks: list[RemovableHandle] = field(default_factory=list)

    def __enter__(self) -> Taps:
        self._hooks = [
            layer.register_forward_hook(self._listener(name)) for name, layer in self.layers.items()
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._heard.clear()

    def gradients(self, value: Tensor) -> Iterator[tuple[str, LayerGradients]]:
        """By layer, what the last forward's samples do to `value`, a sum over samples of a scalar of each.

        Layers that took no part are passed over; the places of those that ran several times stand one after
        another. Patches are made when a layer's turn comes, so that one layer's are in memory.
        """
        names = [name for name in self.layers if name in self._heard]
        probes = [probe for name in names for _, probe in self._heard[name]]
        found = iter(torch.autograd.grad(value, probes, materialize_grads=True))
        by_name = {name: [next(found) for _ in self._heard[name]] for name in names}
        for name in names:
            layer, inputs = self.layers[name], [given for given, _ in self._heard.pop(name)]
            yield (
                name,
                LayerGradients(
                    torch.cat([_columns(layer, given) for given in inputs], dim=1),
                    torch.cat([_places(layer, each) for each in by_name.pop(name)], dim=1),
                ),
            )

    def _listener(self, name: str) -> Callable[..., Tensor]:
        def heard(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            # added, so that the output has a gradient though weights are frozen, and whatever writes on it
            probe = torch.zeros_like(output, requires_grad=True)
            self._heard.setdefault(name, []).append((args[0].detach(), probe))
            return output + probe

        return heard


def _plain(layer: nn.Conv2d) -> bool:
    return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _columns(layer: nn.Linear | nn.Conv2d, given: Tensor) -> Tensor:
    """What a layer's weight is multiplied with, [B, L, n]."""
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)  # `_plain`
        given = F.unfold(given, layer.kernel_size, layer.dilation, layer.padding, layer.stride).mT
    given = _wide(given.reshape(len(given), -1, given.shape[-1]))
    return given if layer.bias is None else F.pad(given, (0, 1), value=1.0)


def _places(layer: nn.Linear | nn.Conv2d, output: Tensor) -> Tensor:
    """Gradients by a layer's output as [B, L, m]."""
    if isinstance(layer, nn.Conv2d):
        return _wide(output.flatten(2).mT)
    return _wide(output.reshape(len(output), -1, output.shape[-1]))


def _wide(value: Tensor) -> Tensor:
    """At least float32."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
