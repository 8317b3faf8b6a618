"""One closed HDF5 file per segment of a table: rows, arrays, attributes; equal content, equal bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli.store.keys import canonical_json

if TYPE_CHECKING:
    import numpy as np

    Arrays = dict[str, np.ndarray[Any, Any]]

_KINDS = "biufc"
_CHUNK_BYTES = 1 << 18


def schema(arrays: Arrays) -> dict[str, dict[str, Any]]:
    """Type and shape of one row, for each array by name."""
    return {
        name: {"dtype": array.dtype.str, "shape": list(array.shape[1:])}
        for name, array in sorted(arrays.items())
    }


def check(rows: Sequence[str], arrays: Mapping[str, Any]) -> Arrays:
    """The arrays as numpy arrays; ValueError unless rows and arrays make a segment."""
    import numpy as np

    if not rows or not all(isinstance(row, str) and row for row in rows):
        raise ValueError("a segment needs at least one row, and rows are named by non-empty strings")
    if len(set(rows)) != len(rows):
        raise ValueError("a row is named twice")
    if not arrays:
        raise ValueError("a segment needs at least one array")
    checked = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in checked.items():
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"not a name for an array: {name!r}")
        if array.dtype.kind not in _KINDS:
            raise ValueError(f"array {name!r} is of type {array.dtype}, which a table does not hold")
        if array.ndim == 0 or array.shape[0] != len(rows):
            raise ValueError(f"array {name!r} has shape {array.shape}, not {len(rows)} rows")
    return checked


def encode(rows: Sequence[str], arrays: Arrays, attrs: dict[str, Any]) -> bytes:
    """The bytes of the HDF5 file.

    It is made in memory, so that HDF5 itself never writes into the store: the file then goes the way of
    every other blob.
    """
    import h5py
    import numpy as np

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v110"), track_order=False) as file:
        text = canonical_json({"attrs": attrs, "rows": list(rows)})
        _write(file, "meta", np.frombuffer(text, dtype=np.uint8))
        group = file.create_group("arrays", track_order=False)
        for name in sorted(arrays):
            _write(group, name, arrays[name])
    return buffer.getvalue()


def _write(group: Any, name: str, array: np.ndarray[Any, Any]) -> None:
    if array.size == 0:  # HDF5 has no chunks without elements
        group.create_dataset(name, data=array, track_times=False)
        return
    row_bytes = max(1, array.nbytes // array.shape[0])
    count = max(1, min(array.shape[0], _CHUNK_BYTES // row_bytes))
    chunks = (count, *array.shape[1:])
    group.create_dataset(name, data=array, chunks=chunks, fletcher32=True, track_times=False)


Content = tuple[list[str], "Arrays", dict[str, Any]]
"""Rows, arrays and attributes of a segment."""


def picked(content: Content, wanted: Sequence[int] | None) -> Content:
    """What `read` gives with `wanted`, of the whole that it gives without."""
    rows, arrays, attrs = content
    if wanted is None:
        return content
    return rows, {name: data[list(wanted)] for name, data in arrays.items()}, attrs


UNREADABLE = (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError, MemoryError)
"""What `read` raises for a file that is no segment."""


def read(path: Path, wanted: Sequence[int] | None = None) -> Content:
    """Rows, arrays and attributes of a segment; if `wanted` is given, only those positions of the arrays.

    One of `UNREADABLE` where it is none. Nothing outside the file is read for it, and no array is larger than
    the file.
    """
    import h5py
    import numpy as np

    size = path.stat().st_size
    with h5py.File(path, "r", locking=False) as file:
        meta = json.loads(_dataset(file, "meta", size)[()].tobytes())
        rows, attrs = meta["rows"], meta["attrs"]
        if not isinstance(rows, list) or not isinstance(attrs, dict):
            raise ValueError("it names no rows")
        arrays: Arrays = {}
        group = file["arrays"]
        for name in group:
            data = _dataset(group, name, size)
            if not data.shape or data.shape[0] != len(rows):
                raise ValueError(f"array {name!r} has not a row for each")
            if wanted is None:
                arrays[name] = data[()]
            else:
                # One contiguous read: HDF5 is slow at picking single rows.
                low, high = (min(wanted), max(wanted) + 1) if wanted else (0, 0)
                arrays[name] = data[low:high][np.asarray(wanted, dtype=np.intp) - low]
    return rows, arrays, attrs


def _dataset(group: Any, name: str, largest: int) -> Any:
    """A data set that lies in the file itself, of `largest` bytes at most."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name!r} is a link")
    found = group[name]
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external or found.nbytes > largest:
        raise ValueError(f"{name!r} is not an array of this file")
    return found
