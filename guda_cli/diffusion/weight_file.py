"""Weights as a safetensors file: written tensor by tensor, read by mapping it into memory."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guda_cli.diffusion import networks
from guda_cli.diffusion.networks import Weights

_KINDS = {  # in the order in which safetensors lays them out
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _KINDS.items()}
_DROP = getattr(mmap, "MADV_DONTNEED", None)


class PackedWeights:
    """Weights as the bytes of the file they become, which are made as they are written.

    The same bytes as `networks.to_bytes`. Floating tensors are checked as they go by: DataError naming the
    first with a NaN or infinity, as one of `what`. With `single` they are stored as float32, whatever they
    are in memory.
    """

    def __init__(self, weights: Weights, what: str, *, single: bool = False) -> None:
        self.weights, self.what, self.single = weights, what, single

    def pieces(self) -> Iterator[memoryview | bytes]:
        """The file's bytes in order, of a tensor at a time."""
        names = sorted(self.weights, key=lambda name: (_ORDER[self._dtype(name)], name))
        yield _header({name: (self._dtype(name), self.weights[name].shape) for name in names})
        for name in names:
            value = self._stored(name)
            networks.check_finite({name: value}, self.what)
            if value.numel():
                yield value.reshape(-1).view(torch.uint8).numpy().data

    def with_weights(self, weights: Weights) -> PackedWeights:
        """The same of other weights."""
        return PackedWeights(weights, self.what, single=self.single)

    def tensors(self) -> Weights:
        """The weights as they are stored."""
        return {name: self._stored(name) for name in self.weights}

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedWeights) and bytes(self) == bytes(other)

    __hash__ = None  # type: ignore[assignment]

    def _dtype(self, name: str) -> torch.dtype:
        value = self.weights[name]
        return torch.float32 if self.single and value.is_floating_point() else value.dtype

    def _stored(self, name: str) -> Tensor:
        return self.weights[name].detach().to("cpu", self._dtype(name)).contiguous()


_ORDER = {dtype: place for place, dtype in enumerate(_KINDS)}


def _header(tensors: Mapping[str, tuple[torch.dtype, torch.Size]]) -> bytes:
    entries: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + shape.numel() * dtype.itemsize
        entries[name] = {"dtype": _KINDS[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class MappedWeights(dict[str, Tensor]):
    """Tensors that lie in a mapped file: read when they are used, and never to be changed.

    What was read takes memory that the system may have back, and that `release` gives back.
    """

    def __init__(self, mapping: mmap.mmap, places: Mapping[str, tuple[int, int]], tensors: Weights) -> None:
        super().__init__(tensors)
        self._mapping, self._places = mapping, places

    def release(self, name: str) -> None:
        """Give back the memory of a tensor that is not used for now; it can be used again."""
        if _DROP is None or name not in self._places:
            return
        start, stop = self._places[name]
        start += -start % mmap.PAGESIZE  # pages that are another's, too, stay
        if stop - start >= mmap.PAGESIZE:
            self._mapping.madvise(_DROP, start, stop - start - (stop - start) % mmap.PAGESIZE)


def mapped(path: Path) -> MappedWeights:
    """The weights in the file at `path`, which `PackedWeights` or safetensors wrote; nothing is copied.

    ValueError where it is no such file: digests are checked before.
    """
    with path.open("rb") as file:
        # private: were a tensor changed by mistake, the file would not be
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    head = 8 + int.from_bytes(mapping[:8], "little")
    tensors: Weights = {}
    places: dict[str, tuple[int, int]] = {}
    for name, entry in json.loads(mapping[8:head]).items():
        if name == "__metadata__":
            continue
        start, stop = (head + offset for offset in entry["data_offsets"])
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        places[name] = start, stop
        if start == stop:
            tensors[name] = torch.empty(shape, dtype=dtype)
        else:
            count = (stop - start) // dtype.itemsize
            tensors[name] = torch.frombuffer(mapping, dtype=dtype, count=count, offset=start).reshape(shape)
    return MappedWeights(mapping, places, tensors)


class Changes(Mapping[str, Tensor]):
    """Weights that are made when they are asked for, each time anew: only one need be in memory.

    `before | changes` are those of `before`, with these in place of or beside them, as lazily.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> Tensor:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __ror__(self, before: Mapping[str, Tensor]) -> Changes:
        return Changes({name: _given(value) for name, value in before.items()} | self._makers)


def _given(value: Tensor) -> Callable[[], Tensor]:
    return lambda: value
