"""`metadata.jsonl` and `metadata.csv` beside images (Hugging Face ImageFolder convention)."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from guda_cli.data.sources.names import composed, windows_path
from guda_cli.data.sources.rows import (
    PROMPT_COLUMNS,
    Nested,
    check_size,
    csv_rows,
    decoded,
    json_rows,
    missing,
)
from guda_cli.data.sources.tree import Tree
from guda_cli.errors import DataError, unknown
from guda_cli.phrases import few

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
DESCRIPTOR_SEPARATOR = ", "
_INFINITE = frozenset({"inf", "-inf", "+inf"})
"""How programs write a number without bound into CSV."""


class Row(NamedTuple):
    """What one line says of an image."""

    values: dict[str, Any]
    file: str
    line: int

    def place(self, column: str) -> str:
        """File, line and column, for messages."""
        return f"{self.file}, line {self.line}, column '{column}'"


_NO_ROW = Row({}, "", 0)


@dataclass
class Metadata:
    """Rows of every metadata file of a tree, by the full path of the image they speak of."""

    rows: dict[str, Row] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def prompt(self, name: str) -> str | None:
        """The text of image `name`, from the first prompt column that has one; a list is none.

        DataError for a number without bound.
        """
        row = self.rows.get(name, _NO_ROW)
        for column in PROMPT_COLUMNS:
            value = row.values.get(column)
            if value is not None and not isinstance(value, (list, Nested)):
                if isinstance(value, float) and math.isinf(value):
                    raise DataError(f"{row.place(column)}: the prompt of {name} is no text but {value}")
                return str(value)
        return None

    def unread_prompts(self, names: Iterable[str]) -> list[str]:
        """Those of the images `names` whose caption is a list or an object, and counts as none."""
        return [
            name
            for name in names
            if self.prompt(name) is None
            and any(
                isinstance(self.rows.get(name, _NO_ROW).values.get(column), (list, Nested))
                for column in PROMPT_COLUMNS
            )
        ]

    def values(self, name: str, column: str) -> list[str]:
        """The group values of image `name` in `column`; empty when it has none.

        DataError naming file, line and column for a value that is no text, number or list of these.
        """
        row, column = self.rows.get(name, _NO_ROW), composed(column)
        value = row.values.get(column)
        items = value if isinstance(value, list) else [value]
        try:
            return [text for text in map(_text, items) if text]
        except ValueError as err:
            raise DataError(
                f"{row.place(column)}: the value for {name} must be text, a number or a list of these",
                why=f"it is {err}",
                fix="write the name alone, or group by another column",
            ) from None

    def descriptors(self, name: str, column: str) -> tuple[str, ...] | None:
        """Style descriptors of image `name`: a list (in a CSV cell as JSON), or text split at ", "."""
        row, column = self.rows.get(name, _NO_ROW), composed(column)
        value = row.values.get(column)
        if isinstance(value, str):
            value = _list_of(value)
        try:
            if value is not None and not isinstance(value, list):
                raise ValueError(_kind(value))
            return tuple(text for text in map(_text, value or ()) if text) or None
        except ValueError as err:
            raise DataError(
                f"{row.place(column)}: descriptors of {name} must be text or a list of texts",
                why=f"it is {err}",
            ) from None

    def check_column(self, column: str, key: str = "data.group") -> None:
        """DataError with the nearest name when no row has `column`, which the recipe's `key` names."""
        column = composed(column)
        if column in self.columns:
            return
        if not self.sources:
            raise DataError(
                f"{key} names the metadata column '{column}', and there are no metadata",
                why="columns are those of metadata.jsonl or metadata.csv beside the images",
                fix=f"add such a file, or --set {key}=null",
            )
        known = [c for c in self.columns if c != "file_name" and c not in PROMPT_COLUMNS]
        folder = key == "data.group"
        raise DataError(
            unknown("metadata column", column, [*known, "folder"] if folder else known),
            why=f"{key} names columns of {few(self.sources, 2)}" + (", or 'folder'" if folder else ""),
        )


def read_metadata(tree: Tree, root: str, *, strict: bool) -> Metadata:
    """Every metadata file of `tree` whose rows speak of images below `root` ("" for all).

    `strict`: a metadata file without `file_name` is a DataError rather than a note. Where a folder has
    both kinds of file, metadata.jsonl counts.
    """
    meta = Metadata()
    folders: set[str] = set()
    sizes = {p: size for p, size in tree.files.items() if posixpath.basename(p) in METADATA_NAMES}
    check_size(sum(sizes.values()), f"{tree.where}: {few(sorted(sizes), 2)}")
    for kind in METADATA_NAMES:
        for path in sorted(sizes):
            folder, base = posixpath.split(path)
            if base != kind or not _related(folder, root):
                continue
            if folder in folders:
                meta.notes.append(f"{path} was ignored: metadata.jsonl beside it counts")
                continue
            folders.add(folder)
            _add_file(meta, tree, path, strict=strict)
    return meta


def _related(folder: str, root: str) -> bool:
    """Whether metadata in `folder` can speak of images below `root`."""
    inside = not root or folder == root or folder.startswith(root + "/")
    return inside or not folder or root.startswith(folder + "/")


def _add_file(meta: Metadata, tree: Tree, path: str, *, strict: bool) -> None:
    where = f"{tree.where}: {path}"
    folder = posixpath.dirname(path)
    text = decoded(tree.read(path), where)
    rows = json_rows(text, where) if path.endswith(".jsonl") else csv_rows(text, where)
    meta.sources.append(path)
    columns = dict.fromkeys(meta.columns)
    for line, row in rows:
        file_name = row.get("file_name")
        if not isinstance(file_name, str) or not file_name:
            if not strict and line <= 2 and "file_name" not in row:
                meta.notes.append(f"{path} was ignored: it has no column file_name")
                return
            raise DataError(f"{where}, line {line} names no file", why="every row needs file_name")
        image = _place_of(tree, folder, file_name, f"{where}, line {line}")
        if image in meta.rows:
            raise DataError(
                f"{where}, line {line}: {image} has a row already, in line {meta.rows[image].line}",
                fix="give it one row; several groups may be a list in metadata.jsonl",
            )
        columns.update(dict.fromkeys(row))
        meta.rows[image] = Row(row, where, line)
    meta.columns = list(columns)


def _place_of(tree: Tree, folder: str, file_name: str, where: str) -> str:
    """The path in `tree` of the file that metadata in `folder` call `file_name`; DataError if outside.

    A backslash parts folders, as Windows writes it, unless a file is there that has it in its name.
    """
    name = composed(file_name)
    image = posixpath.normpath(posixpath.join(folder, name))
    if image in tree.files:
        return image
    if windows_path(name):
        raise DataError(
            f"{where}: file_name '{file_name}' is an absolute path",
            why="the images are sought beside the metadata file",
            fix="write file_name relative to the metadata file",
        )
    name = name.replace("\\", "/")
    image = posixpath.normpath(posixpath.join(folder, name))
    if name.startswith("/") or image.startswith("../"):
        raise DataError(f"{where}: file_name '{file_name}' leads outside")
    return image


def _list_of(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except (ValueError, RecursionError):
            pass
    return text.split(DESCRIPTOR_SEPARATOR)


def _text(value: Any) -> str:
    """One group value as composed text: numbers without a needless `.0`, "" for a missing one.

    ValueError saying what it is instead.
    """
    if missing(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (str, int, float)) and not _infinite(value):
        return composed(str(value)).strip()
    raise ValueError(_kind(value))


def _infinite(value: str | float) -> bool:
    if isinstance(value, str):
        return value.strip() in _INFINITE
    return isinstance(value, float) and math.isinf(value)


def _kind(value: Any) -> str:
    """What a value is that fits nowhere."""
    if isinstance(value, Nested):
        return value.kind
    return f"a number that is too large or has no bound ({value})" if _infinite(value) else f"{value!r}"
