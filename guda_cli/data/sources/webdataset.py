"""WebDataset: tar archives, one or many, in which `x.jpg`, `x.txt`, `x.cls`, `x.json` are one sample."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from guda_cli.data.sources.archive import ARCHIVE_MAX_PIXELS, open_archive
from guda_cli.data.sources.file_sets import left_out
from guda_cli.data.sources.kohya import MOST, beside
from guda_cli.data.sources.metadata import Metadata, Row
from guda_cli.data.sources.rows import row_of
from guda_cli.data.sources.tree import Tree
from guda_cli.errors import DataError

CLASS, FIELDS = ".cls", ".json"


class ShardTree:
    """The files of several archives as one; see `tree.Tree`. One of them is open at a time.

    Where two archives have a file of one name, all names get that of their archive: `0@train-000.jpg`.
    """

    max_pixels: int | None = ARCHIVE_MAX_PIXELS

    def __init__(self, path: Path, shards: list[Path]) -> None:
        self.where, self.notes = str(path), left_out(path, shards)
        self._shards, self._at = shards, -1
        self._tree: Tree | None = None
        inside = [dict(self._shard(i).files) for i in range(len(shards))]
        count = Counter(name for files in inside for name in files)
        twice = any(number > 1 for number in count.values())
        self.files: dict[str, int] = {}
        self._places: dict[str, tuple[int, str]] = {}
        for i, files in enumerate(inside):
            for name, size in files.items():
                called = _with_shard(name, shards[i].stem) if twice else name
                self.files[called], self._places[called] = size, (i, name)

    def _shard(self, number: int) -> Tree:
        if self._tree is None or self._at != number:
            self.close()
            self._tree, self._at = open_archive(self._shards[number]), number
        return self._tree

    def order(self, names: Iterable[str]) -> list[str]:
        """`names` archive by archive, and as they lie there."""
        by_shard: dict[int, dict[str, str]] = {}
        for name in names:
            shard, inner = self._places[name]
            by_shard.setdefault(shard, {})[inner] = name
        parts = ((self._shard(i), found) for i, found in sorted(by_shard.items()))
        return [found[inner] for shard, found in parts for inner in shard.order(found)]

    def read(self, name: str) -> bytes:
        """The content of one file; DataError as the archives'."""
        shard, inner = self._places[name]
        return self._shard(shard).read(inner)

    def close(self) -> None:
        """Close the archive that is open."""
        if self._tree is not None:
            self._tree.close()
        self._tree = None


def _with_shard(name: str, shard: str) -> str:
    folder, base = posixpath.split(name)
    key, dot, ends = base.partition(".")
    return posixpath.join(folder, f"{key}@{shard}{dot}{ends}")


def sample_files(files: Iterable[str]) -> dict[str, tuple[str | None, str | None]]:
    """Path of an image -> paths of its class and of its fields, `x.cls` and `x.json`, where it has one."""
    files = list(files)
    classes, fields = beside(files, (CLASS,)), beside(files, (FIELDS,))
    return {path: (classes.get(path), fields.get(path)) for path in {**classes, **fields}}


def add_samples(meta: Metadata, tree: Tree, samples: Mapping[str, tuple[str | None, str | None]]) -> None:
    """Take `x.cls` as the column `cls` and the entries of `x.json` as columns of image `x`.

    What a metadata file says of it counts first. DataError for a class or entries that cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    image_of = {file: image for image, both in samples.items() for file in both if file is not None}
    for file in tree.order(image_of):
        text = _text(tree, file)
        own = found.setdefault(image_of[file], {})
        if file.lower().endswith(CLASS):
            own |= row_of({"cls": text.strip()}, f"{tree.where}: {file}")
        else:
            own |= row_of(_fields(tree, file, text), f"{tree.where}: {file}") | own
    columns = dict.fromkeys(meta.columns)
    for image, row in found.items():
        told = meta.rows.get(image)
        where = samples[image][1] or samples[image][0] or ""
        meta.rows[image] = Row(row, where, 1) if told is None else told._replace(values=row | told.values)
        columns.update(dict.fromkeys(row))
    meta.columns = list(columns)
    meta.sources += sorted({f"*{posixpath.splitext(file)[1].lower()}" for file in image_of})


def _text(tree: Tree, file: str) -> str:
    if tree.files[file] > MOST:
        raise DataError(
            f"{tree.where}: {file} has {tree.files[file]:,} bytes", why=f"more than {MOST:,} are not read"
        )
    try:
        return tree.read(file).decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError(f"{tree.where}: {file} is not UTF-8 text", why=str(err)) from None


def _fields(tree: Tree, file: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise DataError(f"{tree.where}: {file} is not JSON", why=str(err)) from None
    if not isinstance(found, dict):
        raise DataError(f"{tree.where}: {file} is not a JSON object", why="its entries are metadata columns")
    return found
