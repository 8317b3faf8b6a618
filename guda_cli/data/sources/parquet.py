"""Parquet files of images as the Hugging Face hub has them, grouped by their columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from guda_cli.data.dataset import Dataset, Pixels, Progress, make_dataset, room_before
from guda_cli.data.images import decode
from guda_cli.data.pixel_file import canvas
from guda_cli.data.sources.archive import ARCHIVE_MAX_PIXELS, MAX_MEMBER_BYTES
from guda_cli.data.sources.file_sets import left_out
from guda_cli.data.sources.imagefolder import duplicates
from guda_cli.data.sources.metadata import Metadata
from guda_cli.data.sources.parquet_table import Table
from guda_cli.data.sources.rows import PROMPT_COLUMNS
from guda_cli.data.sources.selection import keep_common, select
from guda_cli.errors import DataError, unknown
from guda_cli.phrases import few, plural
from guda_cli.sections import DataSpec

_MOST_BAD = 5


def read_parquet(path: Path, spec: DataSpec, progress: Progress | None = None) -> Dataset:
    """The images of the parquet files at `path`, grouped by columns; `folder` and `class` mean the label.

    MissingError without pyarrow, DataError for files that cannot be used.
    """
    table = Table(path)
    columns = _columns(table, spec)
    more = [name for name in (spec.common, spec.descriptors) if name is not None]
    meta = table.metadata([*columns, *more, *PROMPT_COLUMNS])
    notes = left_out(path, table.files)
    labels = _labels(meta, spec.group, columns, path)
    if spec.common is not None:
        labels = keep_common(labels, {n: meta.values(n, spec.common) for n in labels}, spec.common, notes)
    chosen = select(labels, spec, notes)
    prompts = [meta.prompt(name) for name in chosen]
    descriptors = None
    if spec.descriptors is not None:
        descriptors = [meta.descriptors(name, spec.descriptors) for name in chosen]
    told = list(chosen), list(chosen.values()), prompts, descriptors
    shape = (len(chosen), spec.channels, spec.size, spec.size)
    images = _decoded(table, list(chosen), spec, lambda: room_before(*told, shape), progress)
    notes += duplicates(images, chosen)
    return make_dataset(images, list(chosen), list(chosen.values()), prompts, notes, descriptors)


def _columns(table: Table, spec: DataSpec) -> list[str]:
    """The columns that tell the groups; DataError for one that the recipe names and that is not there."""
    if spec.prompts is not None:
        raise DataError(
            "the source parquet has its prompts in a column, so data.prompts cannot be set",
            why=f"the first of {', '.join(PROMPT_COLUMNS)} counts",
            fix="--set data.prompts=null",
        )
    columns = [table.label() if name in ("folder", "class") else name for name in spec.group]
    for name in (*columns, spec.common, spec.descriptors):
        if name is not None and name not in table.columns:
            raise DataError(
                unknown("column", name, table.columns),
                why=f"data.group, data.common and data.descriptors name columns of {table.path.name}",
            )
    return columns


def _labels(
    meta: Metadata, asked: Sequence[str], columns: Sequence[str], path: Path
) -> dict[str, frozenset[str]]:
    """Name -> groups; `asked` is what the recipe calls the `columns`."""
    labels, bare = dict[str, frozenset[str]](), list[str]()
    for name in meta.rows:
        held = [
            [value if len(columns) == 1 else f"{called}={value}" for value in meta.values(name, column)]
            for called, column in zip(asked, columns, strict=True)
        ]
        if all(held):
            labels[name] = frozenset(value for values in held for value in values)
        else:
            bare.append(name)
    if bare:
        raise DataError(
            f"{path}: {plural(len(bare), 'row has', 'rows have')} no group: {few(bare)}",
            why=f"there is nothing in {', '.join(columns)}",
            fix="name another column with data.group, or write the files without these rows",
        )
    return labels


def _decoded(
    table: Table,
    names: Sequence[str],
    spec: DataSpec,
    before: Callable[[], int],
    progress: Progress | None,
) -> Pixels:
    """Pixels uint8 [N, C, size, size] of the rows `names`; up to five bad ones in one DataError."""
    images = canvas((len(names), spec.channels, spec.size, spec.size), before)
    place, done, bad = {name: i for i, name in enumerate(names)}, 0, list[str]()
    for row, data in table.images():
        at = place.get(table.name(row))
        if at is None:
            continue
        if progress is not None and done % 256 == 0:
            progress(done, len(names))
        done += 1
        try:
            images[at] = _image_of(data, spec, names[at])
        except DataError as err:
            bad.append(f"row {names[at]} ({err.why})")
            if len(bad) == _MOST_BAD:
                break
    if bad:
        raise DataError(
            f"{table.path}: cannot read " + "; ".join(bad),
            why="a damaged image would change what the model learns, so it is not skipped silently",
            fix="write the files without these rows",
        )
    if progress is not None:
        progress(len(names), len(names))
    return images.finished()


def _image_of(data: Any, spec: DataSpec, name: str) -> Pixels:
    if not isinstance(data, bytes):
        raise DataError(name, why="the row holds no image, but the path of one elsewhere at most")
    if len(data) > MAX_MEMBER_BYTES:
        raise DataError(name, why=f"{len(data):,} bytes are more than {MAX_MEMBER_BYTES:,}")
    return decode(data, spec.size, spec.channels, name, max_pixels=ARCHIVE_MAX_PIXELS)
