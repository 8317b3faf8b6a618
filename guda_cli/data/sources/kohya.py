"""What kohya's scripts are given: captions beside images, and folders named `REPEATS_NAME`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from guda_cli.data.images import is_image
from guda_cli.data.sources.tree import Tree
from guda_cli.errors import DataError
from guda_cli.phrases import few, plural

CAPTION_SUFFIXES = (".caption", ".txt")
"""Of an image's captions the first of these that is there counts."""
MOST = 1 << 20
"""Bytes of a caption, at most."""

_REPEATS = re.compile(r"([1-9]\d{0,2})_(.*\S)", re.DOTALL)
_BOX = re.compile(r"\d+(\s+[-+.\deE]+){4,}\s*")  # YOLO's: a class and where it is


def concepts(folders: Collection[str], notes: list[str]) -> dict[str, str]:
    """The group that each folder stands for, which is its name but for kohya's `10_sks dog`: `sks dog`.

    That is so where all folders are named with a number of repeats. Numbers that count the folders (1, 2, 3)
    or begin with 0 are no repeats. A note says what became of them.
    """
    found = {name: match for name in folders if (match := _REPEATS.fullmatch(name))}
    plain = {name: name for name in folders}
    if not found or len(found) < len(plain):
        return plain
    numbers = sorted(int(match[1]) for match in found.values())
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        notes.append(f"the folders are numbered, which counts as part of the name ({few(sorted(plain), 2)})")
        return plain
    told = few([f"{match[2]} {match[1]}" for _, match in sorted(found.items())], 3)
    notes.append(
        f"folders are named REPEATS_NAME: the group is NAME, and repeats ({told}) are not used, every image "
        "counts once"
    )
    return {name: match[2] for name, match in found.items()}


def caption_files(files: Iterable[str]) -> dict[str, str]:
    """Path of an image -> path of its caption, for the images of `files` that have one.

    `a/0.png` has `a/0.caption` or `a/0.txt`.
    """
    return beside(files, CAPTION_SUFFIXES)


def beside(files: Iterable[str], suffixes: Sequence[str]) -> dict[str, str]:
    """Path of an image -> path of the file that has its name with the first of `suffixes` that is there."""
    files = list(files)
    known: dict[str, str] = {}
    for path in files:
        stem, suffix = posixpath.splitext(path)
        if suffix.lower() in suffixes:
            known.setdefault(stem + suffix.lower(), path)
    found = {}
    for path in filter(is_image, files if known else ()):
        stem = posixpath.splitext(path)[0]
        other = next((known[stem + suffix] for suffix in suffixes if stem + suffix in known), None)
        if other is not None:
            found[path] = other
    return found


def read_captions_beside(tree: Tree, captions: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """Path of an image -> its prompt, from `captions` (see `caption_files`): the first line, as kohya has it.

    Empty captions are none, nor are boxes of objects; notes count those, and captions of several lines.
    DataError for one that is no UTF-8 text or above MOST bytes.
    """
    texts = {path: _read(tree, path) for path in tree.order(dict.fromkeys(captions.values()))}
    boxes = sorted(path for path, lines in texts.items() if lines and all(map(_BOX.fullmatch, lines)))
    long = sorted(path for path, lines in texts.items() if len(lines) > 1 and path not in boxes)
    if boxes:
        hold = plural(len(boxes), "file beside an image holds", "files beside images hold")
        notes.append(f"{hold} boxes, no caption: {few(boxes, 3)}")
    if long:
        have = plural(len(long), "caption has", "captions have")
        notes.append(f"{have} several lines, of which the first counts: {few(long, 3)}")
    return {image: texts[path][0] for image, path in captions.items() if texts[path] and path not in boxes}


def _read(tree: Tree, path: str) -> list[str]:
    """The lines of a caption that hold something."""
    if tree.files[path] > MOST:
        raise DataError(
            f"{tree.where}: {path} is no caption",
            why=f"it has {tree.files[path]:,} bytes, more than {MOST:,}",
            fix="move it away, or rename it to begin with a dot",
        )
    try:
        text = tree.read(path).decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError(
            f"{tree.where}: {path} is not UTF-8 text",
            why=f"it lies beside an image and so counts as its caption; {err}",
            fix="save it as UTF-8, or move it away",
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]
