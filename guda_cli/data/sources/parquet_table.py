"""The rows of parquet files of images, and what their columns hold (`guda[datasets]`)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from guda_cli import git_lfs
from guda_cli.data.sources.file_sets import parquet_files
from guda_cli.data.sources.metadata import Metadata, Row
from guda_cli.data.sources.rows import row_of
from guda_cli.errors import DataError, MissingError
from guda_cli.phrases import few

IMAGE_NAMES = ("image", "img", "jpg", "png", "webp")
LABEL_NAMES = ("label", "labels", "class", "fine_label")
BATCH = 16  # images read at once
GROUP_BYTES = 2 << 30
"""Bytes of the images of one row group, unpacked, at most."""


class Table:
    """The rows of several parquet files, one after the other, named by their number."""

    def __init__(self, path: Path) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            raise MissingError(
                "parquet files are read by the package pyarrow", fix="pip install 'guda[datasets]'"
            )
        self.path, self.files = path, list(parquet_files(path))
        if not self.files:
            raise DataError(
                f"{path} holds no parquet files",
                why="a file, a range such as train-{000..003}.parquet, or a folder of them is read",
            )
        self._opened = [_open(file) for file in self.files]
        self.rows = sum(file.metadata.num_rows for file in self._opened)
        schema = self._opened[0].schema_arrow
        for file, opened in zip(self.files, self._opened, strict=True):
            if not opened.schema_arrow.equals(schema):
                raise DataError(
                    f"{file} has other columns than {self.files[0].name}", fix="name files of one data set"
                )
        self.features = _features(schema.metadata or {})
        self.image = self._image(schema)
        self.columns = [name for name in schema.names if name != self.image]

    def name(self, row: int) -> str:
        """What row `row` is called: its number among all."""
        return f"{row:0{len(str(max(0, self.rows - 1)))}d}"

    def _image(self, schema: Any) -> str:
        import pyarrow as pa

        def holds(kind: Any) -> bool:
            binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
            return bool(binary or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0))

        told = [name for name, feature in self.features.items() if feature.get("_type") == "Image"]
        fit = [str(field.name) for field in schema if holds(field.type)]
        fit = [name for name in told if name in fit] or fit
        best = next((name for name in IMAGE_NAMES if name in fit), fit[0] if len(fit) == 1 else None)
        if best is None:
            there = f"several columns of images: {few(fit)}" if fit else "no column of images"
            raise DataError(
                f"{self.path} has {there}", why="one of bytes is needed, called image", fix="name it image"
            )
        return best

    def label(self) -> str:
        """The column of classes: the only one that is said to be one, or one that is called so."""
        classes = [name for name in self.columns if _class_names(self.features.get(name))]
        called = [name for name in LABEL_NAMES if name in (classes or self.columns)]
        if len(classes) == 1 or (called and not classes):
            return (classes or called)[0]
        there = f"several columns of classes: {few(classes)}" if classes else "no column of classes"
        raise DataError(
            f"{self.path} has {there}",
            why=f"data.group names the column that tells the groups; there are {few(self.columns, 8)}",
            fix=f"--set data.group={(classes or self.columns or ['COLUMN'])[0]}",
        )

    def metadata(self, columns: Collection[str]) -> Metadata:
        """Those of `columns` that are there, classes by their names; by the names of the rows."""
        wanted = [name for name in self.columns if name in columns]
        meta = Metadata(columns=wanted, sources=[self.path.name])
        row = 0
        for file, opened in zip(self.files, self._opened, strict=True):
            for batch in _batches(file, opened, wanted, 4096):
                for values in batch.to_pylist() if wanted else [{}] * batch.num_rows:
                    named = {
                        name: _named(value, self.features.get(name), file) for name, value in values.items()
                    }
                    where = f"{file}, row {row + 1}"
                    meta.rows[self.name(row)] = Row(row_of(named, where), file.name, row + 1)
                    row += 1
        return meta

    def images(self) -> Iterator[tuple[int, Any]]:
        """Each row's number and the bytes of its image, None where there are none."""
        row = 0
        for file, opened in zip(self.files, self._opened, strict=True):
            _check_size(file, opened, self.image)
            for batch in _batches(file, opened, [self.image], BATCH):
                for value in batch.column(0).to_pylist():
                    yield row, value.get("bytes") if isinstance(value, dict) else value
                    row += 1


def _open(file: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        with file.open("rb") as stream:
            if git_lfs.is_pointer(stream.read(64)):
                raise DataError(f"{file} is not there", why=git_lfs.WHY, fix="git lfs pull")
        return pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    except (OSError, ValueError) as err:
        raise _damaged(file, err) from None


def _batches(file: Path, opened: Any, columns: Sequence[str], size: int) -> Iterator[Any]:
    try:
        yield from opened.iter_batches(batch_size=size, columns=list(columns), use_threads=False)
    except (OSError, ValueError, NotImplementedError, MemoryError) as err:  # also those of pyarrow
        raise _damaged(file, err) from None


def _check_size(file: Path, opened: Any, column: str) -> None:
    found = opened.metadata
    for i in range(found.num_row_groups):
        group = found.row_group(i)
        parts = [group.column(j) for j in range(group.num_columns)]
        own = [part for part in parts if part.path_in_schema.split(".")[0] == column]
        size = sum(part.total_uncompressed_size for part in own)
        if size > GROUP_BYTES:
            raise DataError(
                f"{file}: row group {i} holds {size / 1e9:.1f} GB of images",
                why=f"row groups are read one at a time, of {GROUP_BYTES / 1e9:.1f} GB at most",
                fix="write the file with smaller row groups",
            )


def _damaged(file: Path, err: Exception) -> DataError:
    return DataError(
        f"{file} cannot be read as parquet", why=str(err).split("\n")[0], fix="fetch the file again"
    )


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """The columns' kinds as the hub's `datasets` writes them beside the schema; none where it did not."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: kind for name, kind in found.items() if isinstance(kind, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _class_names(feature: Mapping[str, Any] | None) -> list[str] | None:
    """The names of a ClassLabel, or of a list of them; None of another kind."""
    if not feature:
        return None
    inner = feature.get("feature")
    if feature.get("_type") != "ClassLabel":
        return _class_names(inner) if isinstance(inner, dict) else None
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _named(value: Any, feature: Mapping[str, Any] | None, file: Path) -> Any:
    """A value of a row; the name of a class, None where there is none (-1)."""
    names = _class_names(feature)
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(one, feature, file) for one in value]
    if not isinstance(value, int) or value >= len(names) or value < -1:
        raise DataError(f"{file}: class {value!r} has no name", why=f"there are {len(names)} names")
    return None if value == -1 else names[value]
