"""IDX files, the format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from guda_cli.data.dataset import Dataset, Progress
from guda_cli.data.sources.detect import IdxFiles, idx_files
from guda_cli.data.sources.names import composed
from guda_cli.data.sources.packed import check_group, from_arrays
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

_MAX_BYTES = 3 << 28
"""Bytes of the images of one file: they are copied once in order of their groups."""


def read_idx(path: Path, spec: DataSpec, progress: Progress | None = None) -> Dataset:
    """The training images and labels at `path`, a folder or the files' common prefix."""
    check_group(spec, "idx")
    files = idx_files(path)
    if files is None:
        raise DataError(
            f"{path} has no IDX files",
            why="train-images-idx3-ubyte and train-labels-idx1-ubyte are needed, either may end in .gz",
        )
    images, labels = read_array(files.images, 3), read_array(files.labels, 1)
    if len(images) != len(labels):
        raise DataError(f"{files.images} has {len(images)} images, {files.labels} {len(labels)} labels")
    if not len(images):
        raise DataError(f"{files.images} holds no images")
    return from_arrays(images[:, None], labels, _classes(files, int(labels.max()) + 1), spec, progress)


def read_array(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """One IDX file of unsigned bytes with that many dimensions; DataError when it is anything else."""
    try:
        with _open(path) as file:
            head = file.read(4 + 4 * dimensions)
            if head[:4] != bytes((0, 0, 8, dimensions)) or len(head) < 4 + 4 * dimensions:
                raise ValueError(f"it does not begin as an IDX file of bytes with {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", head[4:])
            size = math.prod(shape)
            if size > _MAX_BYTES:
                raise ValueError(f"{size:,} bytes are more than {_MAX_BYTES:,}")
            if shape[0] and not size:
                raise ValueError(f"it holds {shape[0]} images of {' x '.join(map(str, shape[1:]))} pixels")
            data = bytearray(size)
            if _fill(file, data) != size or file.read(1):
                raise ValueError(f"its header promises {size} bytes of data, which is not what follows")
    except (OSError, EOFError, zlib.error, ValueError) as err:
        raise DataError(f"cannot read {path}", why=str(err), fix="fetch the file again") from None
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _fill(file: IO[bytes], data: bytearray) -> int:
    """Read into `data`, without a second copy of it; how many bytes there were."""
    done, view = 0, memoryview(data)
    while done < len(data) and (part := file.read(min(1 << 20, len(data) - done))):
        view[done : done + len(part)] = part
        done += len(part)
    return done


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _classes(files: IdxFiles, count: int) -> list[str]:
    """Names of the classes: classes.txt, else Fashion-MNIST by the folder's name, else class-0 ..."""
    if files.classes is not None:
        return read_class_names(files.classes.read_bytes(), str(files.classes), count)
    parts = files.images.resolve().parent.parts[-2:]
    if count <= len(FASHION) and any("fashion" in part.lower() for part in parts):
        return list(FASHION)
    return [f"class-{c}" for c in range(count)]


def read_class_names(data: bytes, where: str, count: int) -> list[str]:
    """The lines of a file of class names; DataError unless there are `count` different ones at least."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError(f"{where} is not UTF-8 text", why=str(err)) from None
    names = [composed(line.strip()) for line in text.splitlines() if line.strip()]
    if len(names) < count or len(set(names)) != len(names):
        raise DataError(
            f"{where} must hold {count} different class names, one a line", why=f"it has {len(names)}"
        )
    return names
