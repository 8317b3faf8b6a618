"""Prompts from a file of their own, JSON lines or CSV: the recipe's `data.prompts`."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guda_cli.data.sources.names import composed, on_disk, windows_path
from guda_cli.data.sources.rows import (
    IMAGE_COLUMNS,
    PROMPT_COLUMNS,
    Nested,
    check_size,
    csv_header,
    csv_rows,
    decoded,
    has_any,
    json_rows,
)
from guda_cli.data.sources.tree import Tree
from guda_cli.errors import DataError, nearest
from guda_cli.phrases import few, plural


def caption_file(tree: Tree, prompts: str | None, root: str) -> str | None:
    """The path in `tree` that `data.prompts` names: below the top, below `root`, or absolute and inside.

    None when it is not set or is an absolute path elsewhere. DataError when the tree has no such file.
    """
    if prompts is None:
        return None
    prompts = composed(prompts)
    for name in dict.fromkeys(
        (posixpath.normpath(prompts), posixpath.normpath(posixpath.join(root, prompts)))
    ):
        if name in tree.files:
            return name
    if Path(prompts).is_absolute():
        inside = _below(Path(prompts), Path(tree.where))
        return inside if inside in tree.files else None
    known = sorted(path for path in tree.files if path.endswith((".jsonl", ".json", ".csv")))
    guess = nearest(prompts, known)
    raise DataError(
        f"there is no file {prompts} in {tree.where}, nor at this place from the recipe",
        why="data.prompts names JSON lines or CSV of file_name and prompt",
        fix=f"did you mean {guess}?" if guess else "correct data.prompts",
    )


def read_captions(
    tree: Tree, prompts: str, inside: str | None, root: str, notes: list[str]
) -> dict[str, str]:
    """Path in `tree` -> prompt, from rows of file_name (image, file, path), prompt (text, caption).

    `inside` is what `caption_file` found. `file_name` counts from the file's own folder, from
    `root`, or from the tree's top: the first of these at which there is a file. Rows without a prompt are
    passed over, rows whose file is not there are counted in a note. DataError for lines that are no such
    rows, for two different prompts of one image, and when no row fits a file.
    """
    where = prompts if inside is None else f"{tree.where}: {inside}"
    found: dict[str, str] = {}
    absent: list[str] = []
    for line, row in rows_of(_read(tree, prompts, inside, where), where, prompts):
        image, prompt = caption_of(row, f"{where}, line {line}")
        path = next((p for p in _places(image, tree, prompts, inside, root) if p in tree.files), None)
        if path is None:
            absent.append(image)
        elif prompt and found.setdefault(path, prompt) != prompt:
            raise DataError(
                f"{where}, line {line}: {path} has another prompt already",
                fix="give every training image one prompt",
            )
    if absent and not found:
        raise DataError(
            f"{where}: none of the images it names is there, such as {absent[0]}",
            why="file_name counts from the file's own folder, from data.root or from data.path",
        )
    if absent:
        count = plural(len(absent), "image", "images")
        notes.append(f"{count} named in {posixpath.basename(prompts)} not found: {few(absent, 3)}")
    return found


def rows_of(text: str, where: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a file of prompts: JSON lines or CSV, as its `name` ends, else as it begins.

    DataError where CSV has no columns for image and prompt, and as `rows` has it.
    """
    lines = name.lower().endswith((".jsonl", ".json")) or text.lstrip().startswith("{")
    if lines and not name.lower().endswith((".csv", ".tsv")):
        yield from json_rows(text, where)
        return
    header, _, _ = csv_header(text, where)
    if not has_any(header, IMAGE_COLUMNS) or not has_any(header, PROMPT_COLUMNS):
        first = text.partition("\n")[0][:100].strip()
        raise DataError(
            f"{where} has no columns image and prompt",
            why=f"its first line is {first!r}",
            fix="write CSV with the header image,prompt, or JSON lines of these",
        )
    yield from csv_rows(text, where)


def caption_of(row: dict[str, Any], where: str) -> tuple[str, str]:
    """Image, composed, and prompt ("" for none) of one row; DataError naming `where` when it names none."""
    image = next((row[column] for column in IMAGE_COLUMNS if row.get(column)), None)
    column = next((column for column in PROMPT_COLUMNS if row.get(column) is not None), "")
    prompt = row.get(column, "")
    if not isinstance(image, str):
        raise DataError(f"{where} names no image", why="every row needs file_name (or image, file, path)")
    if isinstance(prompt, (list, Nested)) or (isinstance(prompt, float) and math.isinf(prompt)):
        raise DataError(f"{where}: the prompt of {image} is no text", why=f"it stands in column '{column}'")
    if windows_path(image):
        raise DataError(
            f"{where}: '{image}' is an absolute path of Windows",
            why="no image has such a path here",
            fix="write paths relative to the file of prompts",
        )
    return composed(image), str(prompt)


def _read(tree: Tree, prompts: str, inside: str | None, where: str) -> str:
    try:
        if inside is not None:
            check_size(tree.files[inside], where)
            return decoded(tree.read(inside), where)
        path = on_disk(Path(prompts))
        check_size(path.stat().st_size, where)
        return decoded(path.read_bytes(), where)
    except OSError as err:
        raise DataError(
            f"cannot read {prompts}", why=err.strerror or str(err), fix="correct data.prompts"
        ) from None


def _places(image: str, tree: Tree, prompts: str, inside: str | None, root: str) -> Iterator[str]:
    """Paths in the tree that `image` may mean, the likeliest first; none of them leads outside."""
    name = image.replace("\\", "/")
    folder = posixpath.dirname(inside) if inside is not None else ""
    for base in dict.fromkeys((folder, root, "")):
        yield posixpath.normpath(posixpath.join(base, image))  # a backslash may be part of a name
        yield posixpath.normpath(posixpath.join(base, name))
    if inside is None:  # the file lies above the data's folder
        beside = _below(Path(prompts).parent / name, Path(tree.where))
        if beside is not None:
            yield beside


def _below(path: Path, top: Path) -> str | None:
    """`path` relative to the folder `top`, with `/`; None when it is not below it."""
    try:
        return path.resolve().relative_to(top.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):
        return None
