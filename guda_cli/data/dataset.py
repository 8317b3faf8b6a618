"""Training images with their groups, in memory and as bytes."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guda_cli.data.pixel_file import Pixels as Pixels
from guda_cli.data.pixel_file import blocks, chosen, mapped, write_between
from guda_cli.errors import CorruptError, DataError, unknown
from guda_cli.jsonable import canonical

Mask = npt.NDArray[np.bool_]
Progress = Callable[[int, int | None], None]
"""Hears how many images are done, and of how many where that is known."""

_METADATA_KEY = "guda"


@dataclass(frozen=True, eq=False)
class Dataset:
    """N preprocessed images in order of name, and the G groups each belongs to.

    Make one with `make_dataset`, which sorts and computes the digest. `digest` does not cover
    `notes` and `held_out`, nor where the images lie on disk.
    """

    images: Pixels
    """uint8 [N, C, H, W], 0..255; large ones are mapped from a file and cannot be changed (`pixel_file`)."""
    names: tuple[str, ...]
    """Unique, sorted: the path below the root, or `group/index` for packed formats."""
    groups: tuple[str, ...]
    """Sorted group names."""
    membership: Mask
    """bool [N, G]; an image may be in several groups, and is in one at least."""
    prompts: tuple[str | None, ...]
    """Text beside each image, where there is any."""
    digest: str
    """SHA-256 (hex) over pixels, names, groups, membership, prompts and descriptors."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about what was ignored or looks odd."""
    descriptors: tuple[tuple[str, ...] | None, ...] = ()
    """Style descriptors named for each image, None where there are none; of length N."""
    held_out: Dataset | None = None
    """Images of the same groups that no training sees (`data.split`), where some were asked for."""

    def __post_init__(self) -> None:
        if not self.descriptors:
            object.__setattr__(self, "descriptors", (None,) * len(self.names))

    def members(self, group: str) -> Mask:
        """Mask bool [N] of the images in `group`; DataError naming the nearest when there is none."""
        if group not in self.groups:
            raise DataError(unknown("group", group, self.groups))
        column: Mask = self.membership[:, self.groups.index(group)]
        return column

    def counts(self) -> dict[str, int]:
        """Number of images in each group."""
        return {g: int(n) for g, n in zip(self.groups, self.membership.sum(axis=0), strict=True)}

    def __len__(self) -> int:
        return len(self.names)


def make_dataset(
    images: Pixels,
    names: Sequence[str],
    labels: Sequence[Collection[str]],
    prompts: Sequence[str | None] | None = None,
    notes: Sequence[str] = (),
    descriptors: Sequence[Sequence[str] | None] | None = None,
) -> Dataset:
    """Build a Dataset from parallel sequences of length N in any order.

    `images` is uint8 [N, C, H, W]; `labels[i]` holds the groups of image i. The result, its digest
    included, does not depend on the order. ValueError when lengths, types or names do not fit.
    """
    texts = list(prompts) if prompts is not None else [None] * len(names)
    styles = list(descriptors) if descriptors is not None else [None] * len(names)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 [N, C, H, W], not {images.dtype} {images.shape}")
    if not len(images) == len(names) == len(labels) == len(texts) == len(styles):
        raise ValueError("images, names, labels, prompts and descriptors differ in length")
    if len(set(names)) != len(names):
        raise ValueError("names are not unique")
    order = sorted(range(len(names)), key=names.__getitem__)
    if order != list(range(len(names))):
        images = chosen(images, np.array(order))
    images = np.ascontiguousarray(images)
    groups = tuple(sorted({g for label in labels for g in label}))
    column = {g: j for j, g in enumerate(groups)}
    membership = np.zeros((len(names), len(groups)), dtype=np.bool_)
    for row, i in enumerate(order):
        membership[row, [column[g] for g in labels[i]]] = True
    sorted_names = tuple(names[i] for i in order)
    sorted_texts = tuple(texts[i] for i in order)
    sorted_styles = tuple(tuple(found) if (found := styles[i]) else None for i in order)
    digest = _digest(images, sorted_names, groups, membership, sorted_texts, sorted_styles)
    return Dataset(
        images, sorted_names, groups, membership, sorted_texts, digest, tuple(notes), sorted_styles
    )


def part(ds: Dataset, rows: Mask) -> Dataset:
    """The images of `ds` where `rows` [N] is True, with all its groups: some may have no image there."""
    images, membership = chosen(ds.images, rows), ds.membership[rows]
    kept = np.flatnonzero(rows).tolist()
    names = tuple(ds.names[i] for i in kept)
    prompts, descriptors = tuple(ds.prompts[i] for i in kept), tuple(ds.descriptors[i] for i in kept)
    digest = _digest(images, names, ds.groups, membership, prompts, descriptors)
    return Dataset(images, names, ds.groups, membership, prompts, digest, descriptors=descriptors)


def to_bytes(ds: Dataset) -> bytes:
    """`ds` as a safetensors file; equal data sets give equal bytes. Notes and `held_out` are left out."""
    from safetensors.numpy import save

    tensors = {"images": np.ascontiguousarray(ds.images), "membership": np.ascontiguousarray(ds.membership)}
    data: bytes = save(tensors, metadata={_METADATA_KEY: _described(ds)})
    return data


def to_file(ds: Dataset, path: Path) -> None:
    """Write what `to_bytes` gives to the new file `path`, a block at a time; OSError as of writing."""
    write_between(ds.images, path, _head(ds), np.ascontiguousarray(ds.membership).tobytes())


def room_before(
    names: Sequence[str], labels: Sequence[Collection[str]], prompts: Sequence[str | None] | None,
    descriptors: Sequence[Sequence[str] | None] | None, shape: Sequence[int],
) -> int:  # fmt: skip
    """How many bytes stand before the images [N, C, H, W] = `shape` in the file of `make_dataset`'s result.

    All but the images decides that, so they can be decoded into their place.
    """
    empty = np.broadcast_to(np.uint8(0), (len(names), 0, 0, 0))
    found = make_dataset(empty, names, labels, prompts, descriptors=descriptors)
    return len(_head(found, shape))


def _described(ds: Dataset) -> str:
    values = {
        "schema": "guda.dataset/1",
        "digest": ds.digest,
        "names": ds.names,
        "groups": ds.groups,
        "prompts": ds.prompts,
        **_where_given(ds.descriptors),
    }
    return canonical(values).decode("ascii")


def _head(ds: Dataset, shape: Sequence[int] | None = None) -> bytes:
    """What safetensors writes in front of the images, of `shape` where it is not theirs."""
    shape = list(ds.images.shape if shape is None else shape)
    ends = math.prod(shape), math.prod(shape) + ds.membership.size
    header = {
        "__metadata__": {_METADATA_KEY: _described(ds)},
        "images": {"dtype": "U8", "shape": shape, "data_offsets": [0, ends[0]]},
        "membership": {"dtype": "BOOL", "shape": [*ds.membership.shape], "data_offsets": [*ends]},
    }
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def from_bytes(data: bytes) -> Dataset:
    """The data set written by `to_bytes`; CorruptError when it is damaged or something else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        found = _read(json.loads(data[8 : 8 + size]), tensors["images"], tensors["membership"])
    except (SafetensorError, ValueError, KeyError, TypeError) as err:
        raise CorruptError("a stored data set cannot be read", why=str(err)) from None
    head = found.images, found.names, found.groups, found.membership, found.prompts, found.descriptors
    if _digest(*head) != found.digest:
        raise CorruptError("a stored data set is damaged", why="its content does not match its digest")
    return found if found.images.flags.writeable else replace(found, images=found.images.copy())


def from_file(path: Path) -> Dataset:
    """The data set in a file by `to_file`, its images mapped; its bytes are taken to be checked.

    CorruptError when it is something else.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, path.stat().st_size)))
            entries = [(header[name]["dtype"], header[name]["shape"]) for name in ("images", "membership")]
            (kind, shape), (flag_kind, flag_shape) = entries
            if (kind, flag_kind) != ("U8", "BOOL"):
                raise ValueError(f"it holds {kind} and {flag_kind}, not U8 and BOOL")
            file.seek(8 + size + math.prod(shape))
            flags = np.frombuffer(file.read(math.prod(flag_shape)), dtype=np.uint8)
        images = mapped(path, 8 + size, shape)
        return _read(header, images, flags.astype(np.bool_).reshape(flag_shape))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise CorruptError("a stored data set cannot be read", why=str(err)) from None


def _where_given(descriptors: tuple[tuple[str, ...] | None, ...]) -> dict[str, Any]:
    """An entry for the descriptors only where some image has one: data without them keep their digests."""
    return {"descriptors": descriptors} if any(descriptors) else {}


def _read(header: dict[str, Any], images: Pixels, membership: Mask) -> Dataset:
    """The data set of a safetensors header and its tensors; ValueError, KeyError or TypeError otherwise."""
    values = json.loads(header["__metadata__"][_METADATA_KEY])
    if not isinstance(values, dict) or values.get("schema") != "guda.dataset/1":
        raise ValueError("it is not of the schema guda.dataset/1")
    names, groups, prompts = (tuple(values[k]) for k in ("names", "groups", "prompts"))
    if images.ndim != 4 or not len(images) == len(names) == len(membership) == len(prompts):
        raise ValueError("its parts differ in length")
    found = values.get("descriptors", [None] * len(names))
    descriptors = tuple(None if own is None else tuple(map(str, own)) for own in found)
    return Dataset(images, names, groups, membership, prompts, str(values["digest"]), descriptors=descriptors)


def _digest(
    images: Pixels,
    names: tuple[str, ...],
    groups: tuple[str, ...],
    membership: Mask,
    prompts: tuple[str | None, ...],
    descriptors: tuple[tuple[str, ...] | None, ...],
) -> str:
    head = {"shape": images.shape, "names": names, "groups": groups, "prompts": prompts}
    head |= _where_given(descriptors)
    text = canonical(head)
    sha = hashlib.sha256(b"guda.dataset/1\0" + len(text).to_bytes(8, "little") + text)
    sha.update(np.ascontiguousarray(membership, dtype=np.uint8).data)
    for part in blocks(images):
        sha.update(np.ascontiguousarray(images[part]).data)
    return sha.hexdigest()
