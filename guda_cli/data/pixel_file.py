"""Pixels that are larger than memory: in a file, mapped, and looked at block by block."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from guda_cli.errors import DataError

Pixels = npt.NDArray[np.uint8]

MAPPED = 512 << 20
"""Bytes of pixels beyond which they lie in a file instead of in memory."""
BLOCK = 64 << 20
"""Bytes of pixels that are looked at at once."""

_folder: ContextVar[Path | None] = ContextVar("folder of large arrays", default=None)


class Canvas(Protocol):
    """Pixels that are being decoded, image by image, in any order."""

    def __setitem__(self, row: int, pixels: Pixels) -> None:
        """Put one image [C, H, W] into its row."""

    def finished(self) -> Pixels:
        """All of them, uint8 [N, C, H, W]; nothing is put in afterwards."""


@contextlib.contextmanager
def kept_in(folder: Path | None) -> Iterator[None]:
    """Within, large arrays are made in files of `folder`, from which they can be linked into a store there.

    Elsewhere, and with None, in that of TMPDIR, else /var/tmp: /tmp may itself be memory.
    """
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def canvas(shape: Sequence[int], before: Callable[[], int] = lambda: 0) -> Canvas:
    """Room for uint8 images [N, C, H, W]: in memory, or in a file of no name where they are large.

    In the file `before()` bytes are left free in front of them. DataError where the disk has no room.
    """
    if math.prod(shape) <= MAPPED or not hasattr(os, "pwrite"):
        return _InMemory(shape)
    return _InFile(shape, before())


def mapped(path: Path, offset: int, shape: Sequence[int]) -> Pixels:
    """The uint8 array of that shape at `offset` of a file, read where it is looked at, never changed."""
    with path.open("rb") as file:
        return _mapped(file.fileno(), offset, shape)[0]


def is_mapped(images: Pixels) -> bool:
    """Whether these pixels lie in a file."""
    return _mapping(images) is not None


def blocks(images: Pixels) -> Iterator[slice]:
    """Slices over the rows of `images`, of about BLOCK bytes each.

    After each, the memory that mapped pixels took up is given back.
    """
    step = _rows_a_block(images)
    for start in range(0, len(images), step):
        yield slice(start, min(start + step, len(images)))
        release(images)


def rows(images: Pixels) -> Iterator[Pixels]:
    """Every image [C, H, W] in turn, as `blocks` does."""
    for part in blocks(images):
        yield from images[part]


def chosen(images: Pixels, wanted: npt.NDArray[Any]) -> Pixels:
    """`images[wanted]`, a mask or indices; in a file where that is large, `images` itself where it is all."""
    indices = np.flatnonzero(wanted) if wanted.dtype == np.bool_ else wanted
    if len(indices) == len(images) and bool((indices == np.arange(len(images))).all()):
        return images
    out, step = canvas((len(indices), *images.shape[1:])), _rows_a_block(images)
    for start in range(0, len(indices), step):
        for row, i in enumerate(indices[start : start + step].tolist(), start):
            out[row] = images[i]
        release(images)
    return out.finished()


def release(images: Pixels) -> None:
    """Give back the memory of mapped pixels that were looked at; they are read again when needed."""
    found = _mapping(images)
    if found is not None and hasattr(mmap, "MADV_DONTNEED"):
        found.madvise(mmap.MADV_DONTNEED)


def write_between(images: Pixels, target: Path, head: bytes, tail: bytes) -> None:
    """Write `head`, the pixels and `tail` to the new file `target`.

    Pixels that were decoded into a file behind as many free bytes are not copied: their file is given that
    name, where the system and the disk allow it. OSError as of writing.
    """
    if _linked(images, target, head, tail):
        return
    with target.open("xb") as file:
        file.write(head)
        for part in blocks(images):
            file.write(np.ascontiguousarray(images[part]).data)
        file.write(tail)


def _linked(images: Pixels, target: Path, head: bytes, tail: bytes) -> bool:
    found = _mapping(images)
    if not isinstance(found, _Mapping) or found.fd is None or found.place != (len(head), images.size):
        return False
    folder = os.open(target.parent, os.O_RDONLY)
    try:  # only where a folder is given does Python ask for the link to be followed
        os.link(f"/proc/self/fd/{found.fd}", target, src_dir_fd=folder, follow_symlinks=True)
    except (OSError, NotImplementedError):
        return False
    finally:
        os.close(folder)
    _write(found.fd, head, 0)
    _write(found.fd, tail, len(head) + images.size)
    return True


class _InMemory:
    """A plain array."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._images = np.empty(tuple(shape), dtype=np.uint8)

    def __setitem__(self, row: int, pixels: Pixels) -> None:
        self._images[row] = pixels

    def finished(self) -> Pixels:
        """See `Canvas`."""
        return self._images


class _InFile:
    """A file without a name, which is gone with the array that is mapped from it, or with the process."""

    def __init__(self, shape: Sequence[int], before: int) -> None:
        self._shape, self._before = tuple(shape), before
        self._fd: int | None = None
        self._place = _folder.get() or _usual_folder()
        with self._with_room():
            self._fd = _unnamed(self._place)
            end = before + math.prod(self._shape)
            os.ftruncate(self._fd, end)
            if hasattr(os, "posix_fallocate"):  # so that a full disk is told before any work
                os.posix_fallocate(self._fd, 0, end)

    def __setitem__(self, row: int, pixels: Pixels) -> None:
        if self._fd is None or pixels.shape != self._shape[1:] or not 0 <= row < self._shape[0]:
            raise ValueError(f"no room for an image {pixels.shape} in {self._shape}, row {row}")
        with self._with_room():
            _write(self._fd, np.ascontiguousarray(pixels).data, self._before + row * pixels.size)

    def finished(self) -> Pixels:
        """See `Canvas`."""
        if self._fd is None:
            raise ValueError("the array was finished before")
        images, mapping = _mapped(self._fd, self._before, self._shape)
        mapping.fd, mapping.place = self._fd, (self._before, images.size)
        self._fd = None
        return images

    @contextlib.contextmanager
    def _with_room(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            gigabytes = math.prod(self._shape) / 1e9
            raise DataError(
                f"no room for {gigabytes:,.1f} GB of pixels in {self._place}",
                why=err.strerror or str(err),
                fix="make room there, name another folder with TMPDIR or --store, or --set data.size=64",
            ) from None

    def __del__(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


class _Mapping(mmap.mmap):
    """A mapped file. One of this process's own that has no name is open at `fd` as long as it is mapped."""

    fd: int | None = None
    place: tuple[int, int] = (0, 0)
    """Where the pixels begin, and their bytes."""

    def __del__(self) -> None:
        if self.fd is not None:
            os.close(self.fd)


def _mapped(fd: int, offset: int, shape: Sequence[int]) -> tuple[Pixels, _Mapping]:
    size = math.prod(shape)
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    mapping = _Mapping(fd, offset + size - start, access=mmap.ACCESS_READ, offset=start)
    flat = np.frombuffer(mapping, dtype=np.uint8, count=size, offset=offset - start)
    return flat.reshape(tuple(shape)), mapping


def _mapping(images: Pixels) -> mmap.mmap | None:
    """The mapping that an array looks into."""
    found: Any = images
    while found is not None and not isinstance(found, mmap.mmap):
        found = found.obj if isinstance(found, memoryview) else getattr(found, "base", None)
    return found


def _rows_a_block(images: Pixels) -> int:
    return max(1, BLOCK // max(1, math.prod(images.shape[1:])))


def _write(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def _unnamed(folder: Path) -> int:
    """A new file in `folder` that nothing is left of when it is closed."""
    if hasattr(os, "O_TMPFILE"):
        with contextlib.suppress(OSError):  # not every file system has them
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644)
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def _usual_folder() -> Path:
    named, large = os.environ.get("TMPDIR"), Path("/var/tmp")
    if not named and large.is_dir() and os.access(large, os.W_OK):
        return large
    return Path(tempfile.gettempdir())
