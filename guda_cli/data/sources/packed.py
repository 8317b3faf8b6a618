"""Formats that hold arrays and labels instead of image files: from those to a Dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from guda_cli.data.dataset import Dataset, Pixels, Progress, make_dataset
from guda_cli.data.images import preprocess
from guda_cli.data.pixel_file import canvas, rows
from guda_cli.data.sources.imagefolder import duplicates
from guda_cli.data.sources.selection import select
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec


def from_arrays(
    pixels: Pixels,
    labels: npt.NDArray[np.integer],
    classes: Sequence[str],
    spec: DataSpec,
    progress: Progress | None = None,
) -> Dataset:
    """A Dataset of `pixels` uint8 [N, C, H, W] whose group is `classes[labels[i]]`.

    Names are `<group>/<index in the source>`, with as many digits as the largest index needs.
    """
    if len(labels) and int(labels.max()) >= len(classes):
        raise DataError(f"label {int(labels.max())} has no class name", why=f"there are {len(classes)} names")
    digits = len(str(max(0, len(labels) - 1)))
    index = {f"{classes[int(c)]}/{i:0{digits}d}": i for i, c in enumerate(labels)}
    groups = {name: frozenset({classes[int(labels[i])]}) for name, i in index.items()}
    notes: list[str] = []
    chosen = select(groups, spec, notes)
    taken = np.fromiter((index[name] for name in chosen), dtype=np.int64, count=len(chosen))
    images = fit(pixels[taken], spec, progress)
    notes += duplicates(images, chosen)
    return make_dataset(images, list(chosen), list(chosen.values()), notes=notes)


def fit(pixels: Pixels, spec: DataSpec, progress: Progress | None = None) -> Pixels:
    """`pixels` uint8 [N, C, H, W] at the size and channels of `spec`, by `images.preprocess`."""
    from PIL import Image

    n = len(pixels)
    shape = (spec.channels, spec.size, spec.size)
    if pixels.shape[1:] == shape:
        out = np.ascontiguousarray(pixels)
    else:
        room = canvas((n, *shape))
        for i, chw in enumerate(rows(pixels)):
            if progress is not None and i % 256 == 0:
                progress(i, n)
            hwc = chw[0] if len(chw) == 1 else np.ascontiguousarray(chw.transpose(1, 2, 0))
            room[i] = preprocess(Image.fromarray(hwc), spec.size, spec.channels)
        out = room.finished()
    if progress is not None:
        progress(n, n)
    return out


def check_group(spec: DataSpec, source: str, known: Sequence[str] = ("folder", "class")) -> str:
    """The one grouping a packed source is asked for; DataError for a metadata column it cannot have."""
    if len(spec.group) != 1 or spec.group[0] not in known:
        raise DataError(
            f"the source {source} has no grouping {', '.join(spec.group) or '(none)'}",
            why="it holds images and class labels only",
            fix="set data.group to one of: " + ", ".join(known),
        )
    for key in ("common", "prompts", "descriptors"):
        if getattr(spec, key) is not None:
            raise DataError(
                f"the source {source} has no metadata, so data.{key} cannot be set",
                fix=f"--set data.{key}=null",
            )
    if spec.root and source == "digits":
        raise DataError("the source digits has no folders", fix="leave data.root empty")
    return spec.group[0]
