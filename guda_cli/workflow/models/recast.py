"""The network in another form: in half precision, compiled. One object for all models, and it never moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from guda_cli.diffusion.compiled import CompiledNetwork
from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.networks import Weights
from guda_cli.workflow.project.compute import Form

if TYPE_CHECKING:
    from guda_cli.workflow.models.loaded import Models

PLAIN = ("float32", "tf32", "ieee")
"""Precisions whose weights are float32: what differs is how products are taken (`arithmetic`)."""


class Recast:
    """The full model's network in a form, and any model derived from it, by weights copied in place.

    In place, as a compiled network and a CUDA graph know their weights by where they lie: one compilation
    serves all models. Compiled networks lie in memory channels last.
    """

    def __init__(self, models: Models, form: Form) -> None:
        self.models, self.form = models, form
        device, compiled = models.compute.device, form.compiled
        kind = torch.float32 if form.dtype in PLAIN else getattr(torch, form.dtype)
        weights = {}
        for name, value in models.base.items():
            layout = torch.channels_last if compiled and value.dim() == 4 else torch.contiguous_format
            moved = value.to(device, kind if value.is_floating_point() else value.dtype, copy=True)
            weights[name] = moved.contiguous(memory_format=layout)
        network = models.family.sharing(models.stored.network, weights).to(device)
        self._places: Weights = dict(network.state_dict())
        self._swapped: set[str] = set()
        self._network = CompiledNetwork(network, compiled, models.batch_size) if compiled else network

    @torch.no_grad()
    def swapped(self, changes: Mapping[str, torch.Tensor]) -> Network:
        """The network with `changes` in place of the full model's weights; ValueError if one does not fit."""
        back = {name: self.models.base[name] for name in self._swapped - changes.keys()}
        for name, value in chain(back.items(), changes.items()):
            place = self._places[name]
            if place.shape != value.shape:
                raise ValueError(f"{name} is {list(value.shape)}, not {list(place.shape)}")
            place.copy_(value)
        self._swapped = set(changes)
        return self.models.denoiser(self._network)


@contextmanager
def arithmetic(dtype: str, device: torch.device) -> Iterator[None]:
    """Products of float32 on CUDA in this precision; `float32` is as torch has it: TF32 in convolutions."""
    if device.type != "cuda" or dtype not in ("tf32", "ieee"):
        yield
        return
    parts: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    before = [part.allow_tf32 for part in parts]
    try:
        for part in parts:
            part.allow_tf32 = dtype == "tf32"
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.allow_tf32 = value
