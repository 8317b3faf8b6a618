"""Images of a data set as a tensor, those that are mapped from a file included."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guda_cli.data.dataset import Pixels
from guda_cli.data.pixel_file import chosen, is_mapped, release


class MappedTensor(Tensor):
    """uint8 images [N, C, H, W] in a file, not to be changed; what is made of them are plain tensors.

    The memory that an operation reads the file into is given back after it: otherwise all of the file would
    come to lie in memory in the course of a training.
    """

    pixels: Pixels

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """As on a plain tensor; images that are picked are copied into a file where they are many."""
        own = next((value for value in args if isinstance(value, MappedTensor)), None)
        with torch._C.DisableTorchFunctionSubclass():
            if own is not None and func is Tensor.__getitem__ and _rows(args[1]):
                return tensor_of(chosen(own.pixels, args[1].numpy()))
            found = func(*args, **(kwargs or {}))
        if own is not None:
            release(own.pixels)
        return found


def tensor_of(images: Pixels) -> Tensor:
    """The uint8 `images` [N, C, H, W] without a copy; a MappedTensor where they lie in a file."""
    if not is_mapped(images):
        return torch.from_numpy(images)
    with warnings.catch_warnings():  # that they cannot be changed
        warnings.simplefilter("ignore")
        plain = torch.from_numpy(images)
    found = plain.as_subclass(MappedTensor)
    found.pixels = images
    return found


def _rows(index: Any) -> bool:
    """Whether an index picks images, by a mask or by numbers."""
    return isinstance(index, Tensor) and index.ndim == 1 and index.dtype in (torch.bool, torch.int64)
