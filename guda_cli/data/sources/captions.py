"""Prompts from a JSON-lines file of their own: the recipe's `data.prompts`."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guda_cli.data.sources.metadata import IMAGE_COLUMNS, PROMPT_COLUMNS, json_rows
from guda_cli.data.sources.tree import Tree
from guda_cli.errors import DataError, nearest
from guda_cli.phrases import few, plural


def caption_file(tree: Tree, prompts: str | None, root: str) -> str | None:
    """The path in `tree` that `data.prompts` names: below the top, below `root`, or absolute and inside.

    None when it is not set or is an absolute path elsewhere. DataError when the tree has no such file.
    """
    if prompts is None:
        return None
    for name in dict.fromkeys(
        (posixpath.normpath(prompts), posixpath.normpath(posixpath.join(root, prompts)))
    ):
        if name in tree.files:
            return name
    if Path(prompts).is_absolute():
        inside = _below(Path(prompts), Path(tree.where))
        return inside if inside in tree.files else None
    known = sorted(path for path in tree.files if path.endswith((".jsonl", ".json")))
    guess = nearest(prompts, known)
    raise DataError(
        f"there is no file {prompts} in {tree.where}, nor at this place from the recipe",
        why="data.prompts names JSON lines of file_name and prompt",
        fix=f"did you mean {guess}?" if guess else "correct data.prompts",
    )


def read_captions(
    tree: Tree, prompts: str, inside: str | None, root: str, notes: list[str]
) -> dict[str, str]:
    """Path in `tree` -> prompt, from JSON lines of file_name (image, file, path), prompt (text, caption).

    `inside` is what `caption_file` found. `file_name` counts from the JSON-lines file's own folder, from
    `root`, or from the tree's top: the first of these at which there is a file. Rows without a prompt are
    passed over, rows whose file is not there are counted in a note. DataError for lines that are no such
    rows, for two different prompts of one image, and when no row fits a file.
    """
    where = prompts if inside is None else f"{tree.where}: {inside}"
    found: dict[str, str] = {}
    absent: list[str] = []
    for line, row in json_rows(_read(tree, prompts, inside), where):
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


def caption_of(row: dict[str, Any], where: str) -> tuple[str, str]:
    """Image and prompt ("" for none) of one row; DataError naming `where` when it names no image."""
    image = next((row[column] for column in IMAGE_COLUMNS if row.get(column)), None)
    prompt = next((row[column] for column in PROMPT_COLUMNS if row.get(column) is not None), "")
    if not isinstance(image, str):
        raise DataError(f"{where} names no image", why="every row needs file_name (or image, file, path)")
    if isinstance(prompt, (list, dict)):
        raise DataError(f"{where}: the prompt of {image} is no text")
    return image, str(prompt)


def _read(tree: Tree, prompts: str, inside: str | None) -> str:
    try:
        data = tree.read(inside) if inside is not None else Path(prompts).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError(f"{prompts} is not UTF-8 text", why=str(err)) from None
    except OSError as err:
        raise DataError(
            f"cannot read {prompts}", why=err.strerror or str(err), fix="correct data.prompts"
        ) from None


def _places(image: str, tree: Tree, prompts: str, inside: str | None, root: str) -> Iterator[str]:
    """Paths in the tree that `image` may mean, the likeliest first; none of them leads outside."""
    name = image.replace("\\", "/")
    folder = posixpath.dirname(inside) if inside is not None else ""
    for base in dict.fromkeys((folder, root, "")):
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
