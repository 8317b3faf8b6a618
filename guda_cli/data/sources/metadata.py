"""`metadata.jsonl` and `metadata.csv` beside images (Hugging Face ImageFolder convention)."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from guda_cli.data.sources.tree import Tree
from guda_cli.errors import DataError, unknown
from guda_cli.phrases import few

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
PROMPT_COLUMNS = ("prompt", "text", "caption")
IMAGE_COLUMNS = ("file_name", "image", "file", "path")
"""Where files of prompts name their image; metadata files have `file_name` only."""
DESCRIPTOR_SEPARATOR = ", "


@dataclass
class Metadata:
    """Rows of every metadata file of a tree, by the full path of the image they speak of."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def prompt(self, name: str) -> str | None:
        """The text of image `name`, from the first prompt column that has one; a list is none."""
        row = self.rows.get(name, {})
        for column in PROMPT_COLUMNS:
            value = row.get(column)
            if value is not None and not isinstance(value, (list, dict)):
                return str(value)
        return None

    def unread_prompts(self, names: Iterable[str]) -> list[str]:
        """Those of the images `names` whose caption is a list or an object, and counts as none."""
        return [
            name
            for name in names
            if self.prompt(name) is None
            and any(
                isinstance(self.rows.get(name, {}).get(column), (list, dict)) for column in PROMPT_COLUMNS
            )
        ]

    def values(self, name: str, column: str) -> list[str]:
        """The group values of image `name` in `column`; empty when it has none."""
        value = self.rows.get(name, {}).get(column)
        items = value if isinstance(value, list) else [value]
        return [text for text in map(_text, items) if text]

    def descriptors(self, name: str, column: str) -> tuple[str, ...] | None:
        """Style descriptors of image `name`: a list (in a CSV cell as JSON), or text split at ", "."""
        value = self.rows.get(name, {}).get(column)
        if isinstance(value, str):
            value = _list_of(value)
        if value is not None and not isinstance(value, list):
            raise DataError(f"{name}: descriptors in column '{column}' must be text or a list, not {value!r}")
        return tuple(text for text in map(_text, value or ()) if text) or None

    def check_column(self, column: str, key: str = "data.group") -> None:
        """DataError with the nearest name when no row has `column`, which the recipe's `key` names."""
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
    for kind in METADATA_NAMES:
        for path in sorted(tree.files):
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
    try:
        text = tree.read(path).decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError(f"{where} is not UTF-8 text", why=str(err)) from None
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
        image = posixpath.normpath(posixpath.join(folder, file_name))
        if file_name.startswith("/") or image.startswith("../"):
            raise DataError(f"{where}, line {line}: file_name '{file_name}' leads outside")
        if image in meta.rows:
            raise DataError(
                f"{where}, line {line}: {image} has a row already",
                fix="give it one row; several groups may be a list in metadata.jsonl",
            )
        meta.rows[image] = row
        columns.update(dict.fromkeys(row))
    meta.columns = list(columns)


def json_rows(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of JSON lines; DataError naming `where` and the line for anything else."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as err:
            raise DataError(f"{where}, line {number} is not JSON", why=str(err)) from None
        if not isinstance(row, dict):
            raise DataError(f"{where}, line {number} is not a JSON object")
        yield number, row


def csv_rows(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of CSV with a header, empty cells left out; DataError as in `json_rows`.

    See `delimiter_of`.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter_of(text))
    try:
        for row in reader:
            if None in row:
                raise DataError(f"{where}, line {reader.line_num} has more fields than the header")
            yield reader.line_num, {k: v for k, v in row.items() if v}
    except csv.Error as err:
        raise DataError(f"{where}, line {reader.line_num} is not CSV", why=str(err)) from None


def delimiter_of(text: str) -> str:
    """What parts the columns: a comma, or where the header has none a semicolon or a tab."""
    header = text.partition("\n")[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _list_of(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except (ValueError, RecursionError):
            pass
    return text.split(DESCRIPTOR_SEPARATOR)


def _text(value: Any) -> str:
    """One group value as text: numbers without a needless `.0`, "" for nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (str, int, float)):
        return str(value).strip()
    raise DataError(f"a group must be text, a number or a list of these, not {value!r}")
